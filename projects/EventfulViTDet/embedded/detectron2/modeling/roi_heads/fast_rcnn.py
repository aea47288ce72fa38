"""The last layers of the second stage. Shapes: R regions of all images, K classes without background."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import get_event_storage
from torch import nn
from torchvision.ops import batched_nms

from ..box_regression import Box2BoxTransform, box_regression_loss, check_loss_type

Predictions = tuple[torch.Tensor, torch.Tensor]


class FastRCNNOutputLayers(nn.Module):
    """Scores (K classes, then background) and box deltas of every region, their losses, the detections."""

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec | int,
        *,
        box2box_transform: Box2BoxTransform,
        num_classes: int,
        test_score_thresh: float = 0.0,
        test_nms_thresh: float = 0.5,
        test_topk_per_image: int = 100,
        cls_agnostic_bbox_reg: bool = False,
        smooth_l1_beta: float = 0.0,
        box_reg_loss_type: str = "smooth_l1",
        loss_weight: float | dict[str, float] = 1.0,
        use_fed_loss: bool = False,
        use_sigmoid_ce: bool = False,
    ):
        """
        Args:
            input_shape: of a region's features, which are flattened; or the number of these.
            test_topk_per_image: below 0, no limit.
            loss_weight: of both losses, or by the name of the loss, where 1.0 need not be named.
            use_fed_loss: not in training, which raises ValueError; inference does not depend on it.
            use_sigmoid_ce: score every class by itself (a sigmoid, as LVIS models are trained) instead of all of them
                against each other (a softmax).
        """
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"MODEL.ROI_HEADS.NUM_CLASSES must be at least 1, got {num_classes}")
        shape = ShapeSpec(channels=input_shape) if isinstance(input_shape, int) else input_shape
        inputs = shape.channels * (shape.width or 1) * (shape.height or 1)
        self.num_classes = num_classes
        self.cls_score = nn.Linear(inputs, self.num_classes + 1)
        self.bbox_pred = nn.Linear(inputs, 4 if cls_agnostic_bbox_reg else 4 * self.num_classes)
        for layer, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
        self.box2box_transform = box2box_transform
        self.test_score_thresh = test_score_thresh
        self.test_nms_thresh = test_nms_thresh
        self.test_topk_per_image = test_topk_per_image
        self.smooth_l1_beta = smooth_l1_beta
        self.box_reg_loss_type = box_reg_loss_type
        check_loss_type(self.box_reg_loss_type, "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE")
        names = ("loss_cls", "loss_box_reg")
        self.loss_weight = loss_weight if isinstance(loss_weight, dict) else dict.fromkeys(names, loss_weight)
        self.use_fed_loss = use_fed_loss
        self.use_sigmoid_ce = use_sigmoid_ce

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """All arguments from MODEL.ROI_HEADS, MODEL.ROI_BOX_HEAD and TEST.DETECTIONS_PER_IMAGE."""
        heads, box_head = cfg.MODEL.ROI_HEADS, cfg.MODEL.ROI_BOX_HEAD
        return {
            "input_shape": input_shape,
            "box2box_transform": Box2BoxTransform(weights=box_head.BBOX_REG_WEIGHTS),
            "num_classes": heads.NUM_CLASSES,
            "test_score_thresh": heads.SCORE_THRESH_TEST,
            "test_nms_thresh": heads.NMS_THRESH_TEST,
            "test_topk_per_image": cfg.TEST.DETECTIONS_PER_IMAGE,
            "cls_agnostic_bbox_reg": box_head.CLS_AGNOSTIC_BBOX_REG,
            "smooth_l1_beta": box_head.SMOOTH_L1_BETA,
            "box_reg_loss_type": box_head.BBOX_REG_LOSS_TYPE,
            "loss_weight": {"loss_box_reg": box_head.BBOX_REG_LOSS_WEIGHT},
            "use_fed_loss": box_head.USE_FED_LOSS,
            "use_sigmoid_ce": box_head.USE_SIGMOID_CE,
        }

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
        if self.use_fed_loss:
            raise ValueError("MODEL.ROI_BOX_HEAD.USE_FED_LOSS is True: the embedded Detectron2 has no federated loss")
        logits, deltas = (prediction.float() for prediction in predictions)
        gt_classes = torch.cat([p.gt_classes for p in proposals] or [logits.new_empty(0, dtype=torch.int64)])
        _log_accuracy(logits, gt_classes)
        boxes = Boxes.cat([p.proposal_boxes for p in proposals]).tensor.to(deltas.device)
        # Images without objects have no foreground, so what stands for their gt_boxes is never read.
        gt_boxes = Boxes.cat([p.gt_boxes if p.has("gt_boxes") else p.proposal_boxes for p in proposals]).tensor

        foreground = ((gt_classes >= 0) & (gt_classes < self.num_classes)).nonzero().flatten()
        per_class = deltas.unflatten(1, (-1, 4))  # (R, K or 1, 4)
        column = gt_classes[foreground] if per_class.shape[1] > 1 else torch.zeros_like(foreground)
        loss_box_reg = box_regression_loss(
            self.box2box_transform,
            boxes[foreground],
            per_class[foreground, column],
            gt_boxes.to(deltas.device)[foreground],
            self.box_reg_loss_type,
            self.smooth_l1_beta,
        )
        num_regions = max(len(gt_classes), 1)
        losses = {
            "loss_cls": self._classification_loss(logits, gt_classes) / num_regions,
            "loss_box_reg": loss_box_reg / num_regions,
        }
        return {name: loss * self.loss_weight.get(name, 1.0) for name, loss in losses.items()}

    def _classification_loss(self, logits: torch.Tensor, gt_classes: torch.Tensor) -> torch.Tensor:
        """The sum over all regions."""
        if not self.use_sigmoid_ce:
            return F.cross_entropy(logits, gt_classes, reduction="sum")
        # The background's logit takes no part: a region that is none of the classes has a low score in each.
        targets = F.one_hot(gt_classes, self.num_classes + 1)[:, :-1].to(logits.dtype)
        return F.binary_cross_entropy_with_logits(logits[:, :-1], targets, reduction="sum")

    def inference(
        self, predictions: Predictions, proposals: list[Instances]
    ) -> tuple[list[Instances], list[torch.Tensor]]:
        """Per image the detections (``pred_boxes``, ``scores``, ``pred_classes``) and their regions."""
        return fast_rcnn_inference(
            self.predict_boxes(predictions, proposals),
            self.predict_probs(predictions, proposals),
            [image.image_size for image in proposals],
            self.test_score_thresh,
            self.test_nms_thresh,
            self.test_topk_per_image,
        )

    def predict_boxes(self, predictions: Predictions, proposals: list[Instances]) -> tuple[torch.Tensor, ...]:
        """Per image the boxes of its regions, (Ri, K * 4) or (Ri, 4)."""
        if not proposals:
            return ()
        boxes = torch.cat([p.proposal_boxes.tensor for p in proposals])
        return self.box2box_transform.apply_deltas(predictions[1], boxes).split([len(p) for p in proposals])

    def predict_probs(self, predictions: Predictions, proposals: list[Instances]) -> tuple[torch.Tensor, ...]:
        """Per image the scores of its regions, (Ri, K + 1), of which the last means nothing with a sigmoid."""
        logits = predictions[0].float()
        scores = logits.sigmoid() if self.use_sigmoid_ce else logits.softmax(dim=1)
        return scores.split([len(p) for p in proposals])


def fast_rcnn_inference(
    boxes: Sequence[torch.Tensor],
    scores: Sequence[torch.Tensor],
    image_shapes: Sequence[tuple[int, int]],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[list[Instances], list[torch.Tensor]]:
    """The detections of every image, and the regions that they are from, by index.

    Args:
        boxes: per image (Ri, K * 4) or (Ri, 4).
        scores: per image (Ri, K + 1); the last column is not looked at.
        image_shapes: height and width, which boxes are clipped to.
        score_thresh: scores are above this.
        topk_per_image: below 0, no limit.
    """
    limits = (score_thresh, nms_thresh, topk_per_image)
    found = [_detect(*image, *limits) for image in zip(boxes, scores, image_shapes)]
    return [instances for instances, _ in found], [regions for _, regions in found]


def _detect(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    image_size: tuple[int, int],
    score_thresh: float,
    nms_thresh: float,
    topk_per_image: int,
) -> tuple[Instances, torch.Tensor]:
    """The same for one image."""
    finite = torch.isfinite(boxes).all(dim=1) & torch.isfinite(scores).all(dim=1)
    scores = torch.where(finite[:, None], scores, 0.0)[:, :-1]
    region, label = (scores > score_thresh).logical_and(finite[:, None]).nonzero(as_tuple=True)
    scores = scores[region, label]
    per_class = boxes.unflatten(1, (-1, 4))
    candidates = Boxes(per_class[region, label if per_class.shape[1] > 1 else torch.zeros_like(label)])
    candidates.clip(image_size)
    keep = batched_nms(candidates.tensor, scores, label, nms_thresh)
    if topk_per_image >= 0:
        keep = keep[:topk_per_image]
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
