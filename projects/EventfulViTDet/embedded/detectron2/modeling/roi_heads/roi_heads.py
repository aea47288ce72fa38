from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage
from fvcore.common.registry import Registry
from torch import nn
from torchvision.ops import box_iou

from ..matcher import Matcher
from ..poolers import ROIPooler
from ..sampling import subsample_labels
from .box_head import FastRCNNConvFCHead
from .fast_rcnn import FastRCNNOutputLayers
from .mask_head import MaskRCNNConvUpsampleHead

# The objectness logit of a ground-truth box among the proposals: that of a probability of 1 - 1e-10.
_CERTAIN_LOGIT = math.log((1.0 - 1e-10) / 1e-10)

ROI_HEADS_REGISTRY = Registry("ROI_HEADS")


def build_roi_heads(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """The second stage registered as ``MODEL.ROI_HEADS.NAME``, on the backbone's feature maps by name."""
    name = cfg.MODEL.ROI_HEADS.NAME
    if name not in ROI_HEADS_REGISTRY:
        known = ", ".join(sorted(registered for registered, _ in ROI_HEADS_REGISTRY))
        raise ValueError(f"MODEL.ROI_HEADS.NAME is {name!r}: the embedded Detectron2 has {known} only")
    return ROI_HEADS_REGISTRY.get(name)(cfg, input_shape)


@ROI_HEADS_REGISTRY.register()
class StandardROIHeads(nn.Module):
    """The second stage: pools a region for every proposal, classifies it, refines its box and finds its mask."""

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        batch_size_per_image: int,
        positive_fraction: float,
        proposal_matcher: Matcher,
        box_in_features: Sequence[str],
        box_pooler: ROIPooler,
        box_head: nn.Module,
        box_predictor: nn.Module,
        mask_in_features: Sequence[str] | None = None,
        mask_pooler: ROIPooler | None = None,
        mask_head: nn.Module | None = None,
    ):
        """
        Args:
            batch_size_per_image: proposals to train on, of which at most ``positive_fraction`` show objects.
            box_in_features, mask_in_features: names of the maps that are pooled from; None for no masks.
        """
        super().__init__()
        self.num_classes = num_classes
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.proposal_matcher = proposal_matcher
        self.box_in_features = list(box_in_features)
        self.box_pooler = box_pooler
        self.box_head = box_head
        self.box_predictor = box_predictor
        self.mask_on = mask_in_features is not None
        if self.mask_on:
            self.mask_in_features = list(mask_in_features)
            self.mask_pooler = mask_pooler
            self.mask_head = mask_head

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """``input_shape`` of the backbone's feature maps by name.

        Raises:
            ValueError: the config asks for heads that do not exist here, or MODEL.ROI_HEADS.IN_FEATURES do not agree.
        """
        heads = cfg.MODEL.ROI_HEADS
        return {
            "num_classes": heads.NUM_CLASSES,
            "batch_size_per_image": heads.BATCH_SIZE_PER_IMAGE,
            "positive_fraction": heads.POSITIVE_FRACTION,
            "proposal_matcher": Matcher(heads.IOU_THRESHOLDS, heads.IOU_LABELS),
            **cls._init_box_head(cfg, input_shape),
            **(cls._init_mask_head(cfg, input_shape) if cfg.MODEL.MASK_ON else {}),
        }

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        pooling, shape = box_pooling(cfg, input_shape)
        box_head = FastRCNNConvFCHead(cfg, shape)
        return {**pooling, "box_head": box_head, "box_predictor": FastRCNNOutputLayers(cfg, box_head.output_shape)}

    @classmethod
    def _init_mask_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        pooler, shape = _pooling(cfg, input_shape, cfg.MODEL.ROI_MASK_HEAD)
        return {
            "mask_in_features": cfg.MODEL.ROI_HEADS.IN_FEATURES,
            "mask_pooler": pooler,
            "mask_head": MaskRCNNConvUpsampleHead(cfg, shape),
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
            targets: per image, with ``gt_boxes``, ``gt_classes`` and, for masks, ``gt_masks``; needed in training.

        Returns:
            In training the sampled proposals and the losses by name; in inference the detections and {}.
        """
        if not self.training:
            return self.forward_with_given_boxes(features, self._forward_box(features, proposals)), {}
        proposals = self.label_and_sample_proposals(proposals, targets)
        losses = self._forward_box(features, proposals, targets)
        return proposals, {**losses, **self._forward_mask(features, proposals)}

    def forward_with_given_boxes(
        self, features: dict[str, torch.Tensor], instances: list[Instances]
    ) -> list[Instances]:
        """Masks for boxes that are known, per image with ``pred_boxes`` and ``pred_classes``."""
        return self._forward_mask(features, instances)

    def _forward_box(
        self,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> list[Instances] | dict[str, torch.Tensor]:
        """The losses in training, which the proposals are labelled for; in inference the detections."""
        maps = [features[name] for name in self.box_in_features]
        regions = self.box_pooler(maps, [image.proposal_boxes for image in proposals])
        predictions = self.box_predictor(self.box_head(regions))
        if self.training:
            return self.box_predictor.losses(predictions, proposals)
        return self.box_predictor.inference(predictions, proposals)[0]

    def _forward_mask(
        self, features: dict[str, torch.Tensor], instances: list[Instances]
    ) -> list[Instances] | dict[str, torch.Tensor]:
        """The loss in training, where ``instances`` are labelled proposals; in inference detections with masks."""
        if not self.mask_on:
            return {} if self.training else instances
        if self.training:
            instances = [_foreground(image, self.num_classes) for image in instances]
        boxes = [image.proposal_boxes if self.training else image.pred_boxes for image in instances]
        regions = self.mask_pooler([features[name] for name in self.mask_in_features], boxes)
        return self.mask_head(regions, instances)

    @torch.no_grad()
    def label_and_sample_proposals(self, proposals: list[Instances], targets: list[Instances]) -> list[Instances]:
        """The proposals to train on, with ``gt_classes`` (``num_classes`` for background) and what else is known.

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
        """The same for one image; ``gt_boxes`` and the like are missing where the image has no objects."""
        if ((target.gt_classes < 0) | (target.gt_classes >= self.num_classes)).any():
            raise ValueError(
                f"ground truth has class indices {sorted(set(target.gt_classes.tolist()))}, the model knows "
                f"{self.num_classes} classes: set MODEL.ROI_HEADS.NUM_CLASSES to what the data set has"
            )
        proposals = _append_ground_truth(proposals, target.gt_boxes)
        iou = box_iou(target.gt_boxes.tensor, proposals.proposal_boxes.tensor)
        matches, match_labels = self.proposal_matcher(iou)
        classes = label_boxes(target, matches, match_labels, self.num_classes)
        chosen = torch.cat(
            subsample_labels(classes, self.batch_size_per_image, self.positive_fraction, self.num_classes)
        )
        sampled = proposals[chosen]
        sampled.gt_classes = classes[chosen]
        if len(target):
            for name, values in target.get_fields().items():
                if name.startswith("gt_") and not sampled.has(name):
                    sampled.set(name, values[matches[chosen]])
        return sampled


def label_boxes(target: Instances, matches: torch.Tensor, labels: torch.Tensor, background: int) -> torch.Tensor:
    """(N,) classes of boxes, from what a matcher found for them: ``background`` for negatives, -1 to ignore."""
    if not len(target):
        return torch.full_like(matches, background)
    classes = target.gt_classes[matches]
    classes[labels == 0] = background
    classes[labels == -1] = -1
    return classes


def box_pooling(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> tuple[dict[str, Any], ShapeSpec]:
    """What the heads need to pool for boxes, as arguments by name, and the shape of a region."""
    pooler, shape = _pooling(cfg, input_shape, cfg.MODEL.ROI_BOX_HEAD)
    return {"box_in_features": cfg.MODEL.ROI_HEADS.IN_FEATURES, "box_pooler": pooler}, shape


def _pooling(cfg: CfgNode, input_shape: dict[str, ShapeSpec], head: CfgNode) -> tuple[ROIPooler, ShapeSpec]:
    """The pooler that a head's settings ask for, and the shape of what it pools."""
    shapes = [input_shape[name] for name in cfg.MODEL.ROI_HEADS.IN_FEATURES]
    if len({shape.channels for shape in shapes}) != 1:
        raise ValueError("MODEL.ROI_HEADS.IN_FEATURES share one box head, so they need the same number of channels")
    side = head.POOLER_RESOLUTION
    pooler = ROIPooler(
        output_size=side,
        scales=[1.0 / shape.stride for shape in shapes],
        sampling_ratio=head.POOLER_SAMPLING_RATIO,
        pooler_type=head.POOLER_TYPE,
    )
    return pooler, ShapeSpec(channels=shapes[0].channels, height=side, width=side)


def _foreground(proposals: Instances, num_classes: int) -> Instances:
    """The proposals that show an object."""
    return proposals[(proposals.gt_classes >= 0) & (proposals.gt_classes < num_classes)]


def _append_ground_truth(proposals: Instances, gt_boxes: Boxes) -> Instances:
    logits = proposals.objectness_logits
    truth = Instances(
        proposals.image_size,
        proposal_boxes=gt_boxes,
        objectness_logits=logits.new_full((len(gt_boxes),), _CERTAIN_LOGIT),
    )
    return Instances.cat([proposals, truth])
