from __future__ import annotations

import math

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage
from torch import nn
from torchvision.ops import box_iou

from ..matcher import Matcher
from ..poolers import ROIPooler
from ..sampling import subsample_labels
from .box_head import FastRCNNConvFCHead
from .fast_rcnn import FastRCNNOutputLayers

# The objectness logit of a ground-truth box among the proposals: that of a probability of 1 - 1e-10.
_CERTAIN_LOGIT = math.log((1.0 - 1e-10) / 1e-10)


class StandardROIHeads(nn.Module):
    """The second stage: pools a region for every proposal, then classifies it and refines its box."""

    def __init__(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]):
        """``input_shape`` of the backbone's feature maps by name.

        Raises:
            ValueError: the config asks for heads that do not exist here, or MODEL.ROI_HEADS.IN_FEATURES do not agree.
        """
        super().__init__()
        _check_supported(cfg)
        heads, box_head = cfg.MODEL.ROI_HEADS, cfg.MODEL.ROI_BOX_HEAD
        self.num_classes = heads.NUM_CLASSES
        self.batch_size_per_image = heads.BATCH_SIZE_PER_IMAGE
        self.positive_fraction = heads.POSITIVE_FRACTION
        self.proposal_matcher = Matcher(heads.IOU_THRESHOLDS, heads.IOU_LABELS)
        self.box_in_features = list(heads.IN_FEATURES)
        shapes = [input_shape[name] for name in self.box_in_features]
        if len({shape.channels for shape in shapes}) != 1:
            raise ValueError("MODEL.ROI_HEADS.IN_FEATURES share one box head, so they need the same number of channels")
        side = box_head.POOLER_RESOLUTION
        self.box_pooler = ROIPooler(
            output_size=side,
            scales=[1.0 / shape.stride for shape in shapes],
            sampling_ratio=box_head.POOLER_SAMPLING_RATIO,
            pooler_type=box_head.POOLER_TYPE,
        )
        self.box_head = FastRCNNConvFCHead(
            ShapeSpec(channels=shapes[0].channels, height=side, width=side),
            conv_dims=[box_head.CONV_DIM] * box_head.NUM_CONV,
            fc_dims=[box_head.FC_DIM] * box_head.NUM_FC,
            conv_norm=box_head.NORM,
        )
        self.box_predictor = FastRCNNOutputLayers(cfg, self.box_head.output_shape)

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
        proposals = _append_ground_truth(proposals, target.gt_boxes)
        iou = box_iou(target.gt_boxes.tensor, proposals.proposal_boxes.tensor)
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


def _check_supported(cfg: CfgNode) -> None:
    """There is one kind of heads here; who asks for another must not silently get it."""
    model = cfg.MODEL
    for key, value, supported in (
        ("MASK_ON", model.MASK_ON, False),
        ("ROI_HEADS.NAME", model.ROI_HEADS.NAME, "StandardROIHeads"),
        ("ROI_BOX_HEAD.NAME", model.ROI_BOX_HEAD.NAME, "FastRCNNConvFCHead"),
    ):
        if value != supported:
            raise ValueError(f"MODEL.{key} is {value!r}: the embedded Detectron2 has {supported!r} only")


def _append_ground_truth(proposals: Instances, gt_boxes: Boxes) -> Instances:
    logits = proposals.objectness_logits
    truth = Instances(
        proposals.image_size,
        proposal_boxes=gt_boxes,
        objectness_logits=logits.new_full((len(gt_boxes),), _CERTAIN_LOGIT),
    )
    return Instances.cat([proposals, truth])
