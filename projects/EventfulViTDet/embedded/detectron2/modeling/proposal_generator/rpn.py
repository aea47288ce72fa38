"""The region proposal network.

Shapes: N images, feature maps of Hi x Wi positions with A anchors each, R = sum of Hi * Wi * A.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec, batched_nms, cat
from detectron2.structures import Boxes, ImageList, Instances, pairwise_iou
from detectron2.utils.events import get_event_storage
from fvcore.common.registry import Registry
from torch import nn

from ..anchor_generator import build_anchor_generator
from ..box_regression import Box2BoxTransform, box_regression_loss
from ..matcher import Matcher
from ..sampling import subsample_labels

PROPOSAL_GENERATOR_REGISTRY = Registry("PROPOSAL_GENERATOR")
RPN_HEAD_REGISTRY = Registry("RPN_HEAD")


def build_proposal_generator(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """The module registered as ``MODEL.PROPOSAL_GENERATOR.NAME``, called with (cfg, feature shapes)."""
    return PROPOSAL_GENERATOR_REGISTRY.get(cfg.MODEL.PROPOSAL_GENERATOR.NAME)(cfg, input_shape)


@RPN_HEAD_REGISTRY.register()
class StandardRPNHead(nn.Module):
    """3x3 convolutions, then a 1x1 convolution each for objectness and box deltas; shared by all levels."""

    @configurable
    def __init__(self, *, in_channels: int, num_anchors: int, box_dim: int = 4, conv_dims: Sequence[int] = (-1,)):
        """``num_anchors`` (A) per position; -1 among ``conv_dims`` keeps the number of channels."""
        super().__init__()
        convs = []
        for dim in conv_dims:
            if dim != -1 and dim <= 0:
                raise ValueError(f"MODEL.RPN.CONV_DIMS must be above 0, or -1, got {list(conv_dims)}")
            out_channels = in_channels if dim == -1 else dim
            convs.append(Conv2d(in_channels, out_channels, kernel_size=3, padding=1, activation=nn.ReLU()))
            in_channels = out_channels
        # The weights of one convolution are conv.*, those of several conv.conv0.*, conv.conv1.*, ...
        numbered = OrderedDict((f"conv{index}", conv) for index, conv in enumerate(convs))
        self.conv = convs[0] if len(convs) == 1 else nn.Sequential(numbered)
        self.objectness_logits = nn.Conv2d(in_channels, num_anchors, kernel_size=1)
        self.anchor_deltas = nn.Conv2d(in_channels, num_anchors * box_dim, kernel_size=1)
        for layer in (*convs, self.objectness_logits, self.anchor_deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: list[ShapeSpec]) -> dict[str, Any]:
        anchors = build_anchor_generator(cfg, input_shape)
        channels = {shape.channels for shape in input_shape}
        if len(channels) != 1 or len(set(anchors.num_anchors)) != 1:
            raise ValueError(
                "MODEL.RPN.IN_FEATURES share one head, so they need the same channels and anchors per position, "
                f"got {sorted(channels)} channels and {anchors.num_anchors} anchors"
            )
        return {
            "in_channels": input_shape[0].channels,
            "num_anchors": anchors.num_anchors[0],
            "box_dim": anchors.box_dim,
            "conv_dims": cfg.MODEL.RPN.CONV_DIMS,
        }

    def forward(self, features: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Objectness logits (N, A, Hi, Wi) and box deltas (N, A * 4, Hi, Wi) of every level."""
        hidden = [self.conv(level) for level in features]
        return [self.objectness_logits(h) for h in hidden], [self.anchor_deltas(h) for h in hidden]


@PROPOSAL_GENERATOR_REGISTRY.register()
class RPN(nn.Module):
    """Finds boxes that are likely to hold an object of any class."""

    @configurable
    def __init__(
        self,
        *,
        in_features: Sequence[str],
        head: nn.Module,
        anchor_generator: nn.Module,
        anchor_matcher: Matcher,
        box2box_transform: Box2BoxTransform,
        batch_size_per_image: int,
        positive_fraction: float,
        pre_nms_topk: tuple[int, int],
        post_nms_topk: tuple[int, int],
        nms_thresh: float = 0.7,
        min_box_size: float = 0.0,
        anchor_boundary_thresh: float = -1.0,
        loss_weight: float | dict[str, float] = 1.0,
        box_reg_loss_type: str = "smooth_l1",
        smooth_l1_beta: float = 0.0,
    ):
        """
        Args:
            batch_size_per_image: anchors to train per image, at most ``positive_fraction`` of them positives.
            pre_nms_topk: (training, inference) boxes per level that enter non-maximum suppression.
            post_nms_topk: (training, inference) proposals per image.
            min_box_size: both sides of a proposal are longer than this, in pixels.
            anchor_boundary_thresh: anchors more pixels outside of the image are not trained; -1 for no limit.
            loss_weight: for both losses, or by name: "loss_rpn_cls", "loss_rpn_loc" (1 for a name not given).
        """
        super().__init__()
        self.in_features = list(in_features)
        self.rpn_head = head
        self.anchor_generator = anchor_generator
        self.anchor_matcher = anchor_matcher
        self.box2box_transform = box2box_transform
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        # By self.training.
        self.pre_nms_topk = {True: pre_nms_topk[0], False: pre_nms_topk[1]}
        self.post_nms_topk = {True: post_nms_topk[0], False: post_nms_topk[1]}
        self.nms_thresh = nms_thresh
        self.min_box_size = float(min_box_size)
        self.anchor_boundary_thresh = anchor_boundary_thresh
        if not isinstance(loss_weight, dict):
            loss_weight = {"loss_rpn_cls": loss_weight, "loss_rpn_loc": loss_weight}
        self.loss_weight = loss_weight
        self.box_reg_loss_type = box_reg_loss_type
        self.smooth_l1_beta = smooth_l1_beta

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        rpn = cfg.MODEL.RPN
        shapes = [input_shape[name] for name in rpn.IN_FEATURES]
        return {
            "in_features": rpn.IN_FEATURES,
            "head": RPN_HEAD_REGISTRY.get(rpn.HEAD_NAME)(cfg, shapes),
            "anchor_generator": build_anchor_generator(cfg, shapes),
            "anchor_matcher": Matcher(rpn.IOU_THRESHOLDS, rpn.IOU_LABELS, allow_low_quality_matches=True),
            "box2box_transform": Box2BoxTransform(weights=rpn.BBOX_REG_WEIGHTS),
            "batch_size_per_image": rpn.BATCH_SIZE_PER_IMAGE,
            "positive_fraction": rpn.POSITIVE_FRACTION,
            "pre_nms_topk": (rpn.PRE_NMS_TOPK_TRAIN, rpn.PRE_NMS_TOPK_TEST),
            "post_nms_topk": (rpn.POST_NMS_TOPK_TRAIN, rpn.POST_NMS_TOPK_TEST),
            "nms_thresh": rpn.NMS_THRESH,
            "min_box_size": cfg.MODEL.PROPOSAL_GENERATOR.MIN_SIZE,
            "anchor_boundary_thresh": rpn.BOUNDARY_THRESH,
            "loss_weight": {
                "loss_rpn_cls": rpn.LOSS_WEIGHT,
                "loss_rpn_loc": rpn.BBOX_REG_LOSS_WEIGHT * rpn.LOSS_WEIGHT,
            },
            "box_reg_loss_type": rpn.BBOX_REG_LOSS_TYPE,
            "smooth_l1_beta": rpn.SMOOTH_L1_BETA,
        }

    def forward(
        self, images: ImageList, features: dict[str, torch.Tensor], gt_instances: list[Instances] | None = None
    ) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        """
        Args:
            gt_instances: ground truth with ``gt_boxes`` for every image, needed in training.

        Returns:
            For every image Instances with ``proposal_boxes`` and ``objectness_logits``, best first, and in
            training the losses by name (else an empty dict).
        """
        maps = [features[name] for name in self.in_features]
        anchors = self.anchor_generator(maps)
        logit_maps, delta_maps = self.rpn_head(maps)
        # In the order of the anchors. In float32: low precision would tie most scores.
        logits = [level.permute(0, 2, 3, 1).flatten(1).float() for level in logit_maps]  # (N, Hi * Wi * A)
        deltas = [
            level.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3).float() for level in delta_maps
        ]  # (N, Hi * Wi * A, 4)
        losses = {}
        if self.training:
            if gt_instances is None:
                raise ValueError("the proposal network needs gt_instances in training")
            gt_labels, gt_boxes = self.label_and_sample_anchors(anchors, gt_instances)
            losses = self.losses(anchors, logits, gt_labels, deltas, gt_boxes)
        return self.predict_proposals(anchors, logits, deltas, images.image_sizes), losses

    @torch.no_grad()
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Per image (R,) labels (1, 0, or -1 if not sampled) and the (R, 4) boxes the anchors are for."""
        all_anchors = Boxes.cat(anchors)
        gt_labels, gt_boxes = [], []
        for truth in gt_instances:
            matches, labels = self.anchor_matcher(pairwise_iou(truth.gt_boxes, all_anchors))
            if self.anchor_boundary_thresh >= 0:
                labels[~all_anchors.inside_box(truth.image_size, self.anchor_boundary_thresh)] = -1
            positive, negative = subsample_labels(labels, self.batch_size_per_image, self.positive_fraction, bg_label=0)
            sampled = torch.full_like(labels, -1)
            sampled[positive] = 1
            sampled[negative] = 0
            gt_labels.append(sampled)
            gt_boxes.append(truth.gt_boxes.tensor[matches] if len(truth) else torch.zeros_like(all_anchors.tensor))
        return gt_labels, gt_boxes

    def losses(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[torch.Tensor],
        gt_labels: list[torch.Tensor],
        pred_anchor_deltas: list[torch.Tensor],
        gt_boxes: list[torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """Both losses, summed over the sampled anchors and divided by the number to sample from N images.

        Args:
            pred_objectness_logits, pred_anchor_deltas: per level (N, Hi * Wi * A) and (N, Hi * Wi * A, 4).
            gt_labels, gt_boxes: what ``label_and_sample_anchors`` returns.
        """
        num_images = len(gt_labels)
        labels = torch.stack(gt_labels)  # (N, R)
        positive, sampled = labels == 1, labels >= 0
        storage = get_event_storage()
        storage.put_scalar("rpn/num_pos_anchors", positive.sum().item() / num_images)
        storage.put_scalar("rpn/num_neg_anchors", (labels == 0).sum().item() / num_images)

        # Only the few positives are decoded.
        image_index, anchor_index = positive.nonzero(as_tuple=True)
        loss_loc = box_regression_loss(
            self.box2box_transform,
            Boxes.cat(anchors).tensor[anchor_index],
            cat(pred_anchor_deltas, dim=1)[image_index, anchor_index],
            torch.stack(gt_boxes)[image_index, anchor_index],
            self.box_reg_loss_type,
            self.smooth_l1_beta,
        )
        loss_cls = F.binary_cross_entropy_with_logits(
            cat(pred_objectness_logits, dim=1)[sampled], labels[sampled].float(), reduction="sum"
        )
        num_to_sample = self.batch_size_per_image * num_images
        return {
            "loss_rpn_cls": loss_cls / num_to_sample * self.loss_weight.get("loss_rpn_cls", 1.0),
            "loss_rpn_loc": loss_loc / num_to_sample * self.loss_weight.get("loss_rpn_loc", 1.0),
        }

    @torch.no_grad()
    def predict_proposals(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[torch.Tensor],
        pred_anchor_deltas: list[torch.Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """The best boxes of every image. No gradient passes through them into the second stage."""
        boxes, scores, levels = [], [], []
        for level, (level_anchors, logits, deltas) in enumerate(
            zip(anchors, pred_objectness_logits, pred_anchor_deltas)
        ):
            # Take the best first and decode only these: (N, k), then (N * k, 4).
            top_logits, top = logits.topk(min(self.pre_nms_topk[self.training], logits.shape[1]), dim=1)
            top_deltas = deltas.gather(1, top[:, :, None].expand(-1, -1, 4)).flatten(0, 1)
            top_boxes = self.box2box_transform.apply_deltas(top_deltas, level_anchors.tensor[top.flatten()])
            boxes.append(top_boxes.view(*top.shape, 4))
            scores.append(top_logits)
            levels.append(torch.full_like(top[0], level))
        all_levels = cat(levels)
        return [
            self._select(image_boxes, image_scores, all_levels, image_size)
            for image_boxes, image_scores, image_size in zip(cat(boxes, dim=1), cat(scores, dim=1), image_sizes)
        ]

    def _select(
        self, boxes: torch.Tensor, scores: torch.Tensor, levels: torch.Tensor, image_size: tuple[int, int]
    ) -> Instances:
        """Clip one image's candidates, drop small ones, suppress duplicates within every level."""
        finite = torch.isfinite(boxes).all(dim=1) & torch.isfinite(scores)
        if not finite.all():
            if self.training:
                raise FloatingPointError(
                    "the proposal network predicts infinite or NaN boxes or scores: training has diverged. "
                    "Lower SOLVER.BASE_LR, lengthen the warm-up or clip the gradients (SOLVER.CLIP_GRADIENTS)"
                )
            boxes, scores, levels = boxes[finite], scores[finite], levels[finite]
        clipped = Boxes(boxes)
        clipped.clip(image_size)
        large = clipped.nonempty(self.min_box_size)
        clipped, scores, levels = clipped[large], scores[large], levels[large]
        keep = batched_nms(clipped.tensor, scores, levels, self.nms_thresh)[: self.post_nms_topk[self.training]]
        return Instances(image_size, proposal_boxes=clipped[keep], objectness_logits=scores[keep])
