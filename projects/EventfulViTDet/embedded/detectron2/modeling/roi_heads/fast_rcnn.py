"""The last layers of the second stage. Shapes: R regions of all images, K classes without background."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import get_event_storage
from torch import nn
from torchvision.ops import batched_nms

from ..box_regression import Box2BoxTransform, box_regression_loss, check_loss_type

Predictions = tuple[torch.Tensor, torch.Tensor]


class FastRCNNOutputLayers(nn.Module):
    """Scores (K classes, then background) and box deltas of every region, their losses, the detections."""

    def __init__(self, cfg: CfgNode, input_shape: ShapeSpec):
        """``input_shape`` of a region's features, which are flattened."""
        super().__init__()
        heads, box_head = cfg.MODEL.ROI_HEADS, cfg.MODEL.ROI_BOX_HEAD
        if heads.NUM_CLASSES < 1:
            raise ValueError(f"MODEL.ROI_HEADS.NUM_CLASSES must be at least 1, got {heads.NUM_CLASSES}")
        inputs = input_shape.channels * (input_shape.width or 1) * (input_shape.height or 1)
        self.num_classes = heads.NUM_CLASSES
        self.cls_score = nn.Linear(inputs, self.num_classes + 1)
        self.bbox_pred = nn.Linear(inputs, 4 if box_head.CLS_AGNOSTIC_BBOX_REG else 4 * self.num_classes)
        for layer, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
        self.box2box_transform = Box2BoxTransform(weights=box_head.BBOX_REG_WEIGHTS)
        self.test_score_thresh = heads.SCORE_THRESH_TEST
        self.test_nms_thresh = heads.NMS_THRESH_TEST
        self.test_topk_per_image = cfg.TEST.DETECTIONS_PER_IMAGE  # below 0: no limit
        self.smooth_l1_beta = box_head.SMOOTH_L1_BETA
        self.box_reg_loss_type = box_head.BBOX_REG_LOSS_TYPE
        check_loss_type(self.box_reg_loss_type, "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE")
        self.box_reg_loss_weight = box_head.BBOX_REG_LOSS_WEIGHT

    def forward(self, x: torch.Tensor) -> Predictions:
        """Region features (R, ...) to logits (R, K + 1), background last, and deltas (R, K * 4) or (R, 4)."""
        x = x.flatten(1)
        return self.cls_score(x), self.bbox_pred(x)

    def losses(self, predictions: Predictions, proposals: list[Instances]) -> dict[str, torch.Tensor]:
        """
        Args:
            proposals: per image, with ``proposal_boxes``, ``gt_classes`` (K for background) and ``gt_boxes``,
                which may be missing in an image without objects.

        Returns:
            "loss_cls", the mean over all regions; "loss_box_reg", the sum over the foreground divided by R.
        """
        logits, deltas = (prediction.float() for prediction in predictions)
        gt_classes = torch.cat([p.gt_classes for p in proposals])
        _log_accuracy(logits, gt_classes)
        boxes = torch.cat([p.proposal_boxes.tensor for p in proposals])
        # Images without objects have no foreground, so what stands for their gt_boxes is never read.
        gt_boxes = torch.cat([(p.gt_boxes if p.has("gt_boxes") else p.proposal_boxes).tensor for p in proposals])

        foreground = ((gt_classes >= 0) & (gt_classes < self.num_classes)).nonzero().flatten()
        per_class = deltas.unflatten(1, (-1, 4))  # (R, K or 1, 4)
        column = gt_classes[foreground] if per_class.shape[1] > 1 else torch.zeros_like(foreground)
        loss_box_reg = box_regression_loss(
            self.box2box_transform,
            boxes[foreground],
            per_class[foreground, column],
            gt_boxes[foreground],
            self.box_reg_loss_type,
            self.smooth_l1_beta,
        )
        num_regions = max(len(gt_classes), 1)
        return {
            "loss_cls": F.cross_entropy(logits, gt_classes, reduction="sum") / num_regions,
            "loss_box_reg": loss_box_reg / num_regions * self.box_reg_loss_weight,
        }

    def inference(
        self, predictions: Predictions, proposals: list[Instances]
    ) -> tuple[list[Instances], list[torch.Tensor]]:
        """Per image the detections (``pred_boxes``, ``scores``, ``pred_classes``) and their regions."""
        sizes = [len(p) for p in proposals]
        boxes = self.box2box_transform.apply_deltas(
            predictions[1], torch.cat([p.proposal_boxes.tensor for p in proposals])
        )
        scores = predictions[0].float().softmax(dim=1)
        found = [
            self._detect(image_boxes, image_scores, p.image_size)
            for image_boxes, image_scores, p in zip(boxes.split(sizes), scores.split(sizes), proposals)
        ]
        return [instances for instances, _ in found], [regions for _, regions in found]

    def _detect(
        self, boxes: torch.Tensor, scores: torch.Tensor, image_size: tuple[int, int]
    ) -> tuple[Instances, torch.Tensor]:
        """Detections of one image from boxes (R, K * 4) or (R, 4) and scores (R, K + 1)."""
        finite = torch.isfinite(boxes).all(dim=1) & torch.isfinite(scores).all(dim=1)
        scores = torch.where(finite[:, None], scores, 0.0)[:, :-1]
        region, label = (scores > self.test_score_thresh).logical_and(finite[:, None]).nonzero(as_tuple=True)
        scores = scores[region, label]
        per_class = boxes.unflatten(1, (-1, 4))
        candidates = Boxes(per_class[region, label if per_class.shape[1] > 1 else torch.zeros_like(label)])
        candidates.clip(image_size)
        keep = batched_nms(candidates.tensor, scores, label, self.test_nms_thresh)
        if self.test_topk_per_image >= 0:
            keep = keep[: self.test_topk_per_image]
        detections = Instances(image_size, pred_boxes=candidates[keep], scores=scores[keep], pred_classes=label[keep])
        return detections, region[keep]


def _log_accuracy(logits: torch.Tensor, gt_classes: torch.Tensor) -> None:
    """Put into the event storage how many regions (and foreground regions) get their class right."""
    if len(gt_classes) == 0:
        return
    background = logits.shape[1] - 1
    predicted = logits.argmax(dim=1)
    foreground = (gt_classes >= 0) & (gt_classes < background)
    storage = get_event_storage()
    storage.put_scalar("fast_rcnn/cls_accuracy", (predicted == gt_classes).float().mean().item())
    if foreground.any():
        found = predicted[foreground]
        storage.put_scalar("fast_rcnn/fg_cls_accuracy", (found == gt_classes[foreground]).float().mean().item())
        storage.put_scalar("fast_rcnn/false_negative", (found == background).float().mean().item())
