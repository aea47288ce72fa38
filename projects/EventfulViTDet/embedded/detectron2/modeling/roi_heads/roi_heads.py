from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, ImageList, Instances, pairwise_iou
from detectron2.utils.events import get_event_storage
from fvcore.common.registry import Registry
from torch import nn

from ..matcher import Matcher
from ..poolers import ROIPooler
from ..sampling import subsample_labels
from .box_head import build_box_head
from .fast_rcnn import FastRCNNOutputLayers

ROI_HEADS_REGISTRY = Registry("ROI_HEADS")

# The objectness logit of a ground-truth box among the proposals: that of a probability of 1 - 1e-10.
_CERTAIN_LOGIT = math.log((1.0 - 1e-10) / 1e-10)


def build_roi_heads(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """The module registered as ``MODEL.ROI_HEADS.NAME``, called with (cfg, shapes of the features)."""
    return ROI_HEADS_REGISTRY.get(cfg.MODEL.ROI_HEADS.NAME)(cfg, input_shape)


@ROI_HEADS_REGISTRY.register()
class StandardROIHeads(nn.Module):
    """The second stage: pools a region for every proposal, then classifies it and refines its box."""

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        batch_size_per_image: int,
        positive_fraction: float,
        proposal_matcher: Matcher,
        proposal_append_gt: bool = True,
        box_in_features: Sequence[str],
        box_pooler: ROIPooler,
        box_head: nn.Module,
        box_predictor: FastRCNNOutputLayers,
    ):
        """
        Args:
            num_classes: classes without background.
            batch_size_per_image: proposals to train per image, up to ``positive_fraction`` positives.
            proposal_append_gt: in training, add the ground-truth boxes to the proposals.
            box_in_features: names of the feature maps to pool from.
        """
        super().__init__()
        self.num_classes = num_classes
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.proposal_matcher = proposal_matcher
        self.proposal_append_gt = proposal_append_gt
        self.box_in_features = list(box_in_features)
        self.box_pooler = box_pooler
        self.box_head = box_head
        self.box_predictor = box_predictor

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        if cfg.MODEL.MASK_ON:
            raise ValueError("MODEL.MASK_ON: the embedded Detectron2 detects boxes only; set it to False")
        heads, box_head = cfg.MODEL.ROI_HEADS, cfg.MODEL.ROI_BOX_HEAD
        shapes = [input_shape[name] for name in heads.IN_FEATURES]
        if len({shape.channels for shape in shapes}) != 1:
            raise ValueError("MODEL.ROI_HEADS.IN_FEATURES share one box head, so they need the same number of channels")
        side = box_head.POOLER_RESOLUTION
        head = build_box_head(cfg, ShapeSpec(channels=shapes[0].channels, height=side, width=side))
        return {
            "num_classes": heads.NUM_CLASSES,
            "batch_size_per_image": heads.BATCH_SIZE_PER_IMAGE,
            "positive_fraction": heads.POSITIVE_FRACTION,
            "proposal_matcher": Matcher(heads.IOU_THRESHOLDS, heads.IOU_LABELS),
            "proposal_append_gt": heads.PROPOSAL_APPEND_GT,
            "box_in_features": heads.IN_FEATURES,
            "box_pooler": ROIPooler(
                output_size=side,
                scales=[1.0 / shape.stride for shape in shapes],
                sampling_ratio=box_head.POOLER_SAMPLING_RATIO,
                pooler_type=box_head.POOLER_TYPE,
            ),
            "box_head": head,
            "box_predictor": FastRCNNOutputLayers(cfg, head.output_shape),
        }

    def forward(
        self,
        images: ImageList,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        """
        Args:
            proposals: per image, with ``proposal_boxes`` and ``objectness_logits``.
            targets: per image, with ``gt_boxes`` and ``gt_classes``; needed in training.

        Returns:
            In training the sampled proposals and the losses by name; in inference the detections and {}.
        """
        if self.training:
            if targets is None:
                raise ValueError("the box heads need targets in training")
            proposals = self.label_and_sample_proposals(proposals, targets)
        maps = [features[name] for name in self.box_in_features]
        regions = self.box_pooler(maps, [p.proposal_boxes for p in proposals])
        predictions = self.box_predictor(self.box_head(regions))
        if self.training:
            return proposals, self.box_predictor.losses(predictions, proposals)
        return self.box_predictor.inference(predictions, proposals)[0], {}

    @torch.no_grad()
    def label_and_sample_proposals(self, proposals: list[Instances], targets: list[Instances]) -> list[Instances]:
        """The proposals to train on, with ``gt_classes`` (``num_classes`` for background) and ``gt_boxes``.

        Raises:
            ValueError: a target's class is not within [0, num_classes).
        """
        sampled = [self._label_and_sample(*pair) for pair in zip(proposals, targets)]
        classes = torch.cat([image.gt_classes for image in sampled])
        num_background = (classes == self.num_classes).sum().item()
        storage = get_event_storage()
        storage.put_scalar("roi_head/num_fg_samples", (len(classes) - num_background) / len(sampled))
        storage.put_scalar("roi_head/num_bg_samples", num_background / len(sampled))
        return sampled

    def _label_and_sample(self, proposals: Instances, target: Instances) -> Instances:
        """The same for one image; ``gt_boxes`` is missing where the image has no objects."""
        if ((target.gt_classes < 0) | (target.gt_classes >= self.num_classes)).any():
            raise ValueError(
                f"ground truth has class indices {sorted(set(target.gt_classes.tolist()))}, the model knows "
                f"{self.num_classes} classes: set MODEL.ROI_HEADS.NUM_CLASSES to what the data set has"
            )
        if self.proposal_append_gt:
            proposals = _append_ground_truth(proposals, target.gt_boxes)
        iou = pairwise_iou(target.gt_boxes, proposals.proposal_boxes)
        matches, match_labels = self.proposal_matcher(iou)
        if len(target):
            classes = target.gt_classes[matches]
            classes[match_labels == 0] = self.num_classes
            classes[match_labels == -1] = -1
        else:
            classes = torch.full_like(matches, self.num_classes)
        chosen = torch.cat(
            subsample_labels(classes, self.batch_size_per_image, self.positive_fraction, self.num_classes)
        )
        sampled = proposals[chosen]
        sampled.gt_classes = classes[chosen]
        if len(target):
            sampled.gt_boxes = target.gt_boxes[matches[chosen]]
        return sampled


def _append_ground_truth(proposals: Instances, gt_boxes: Boxes) -> Instances:
    logits = proposals.objectness_logits
    truth = Instances(
        proposals.image_size,
        proposal_boxes=gt_boxes,
        objectness_logits=logits.new_full((len(gt_boxes),), _CERTAIN_LOGIT),
    )
    return Instances.cat([proposals, truth])
