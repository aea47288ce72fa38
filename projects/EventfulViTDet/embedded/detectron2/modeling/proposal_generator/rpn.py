"""The region proposal network.

Shapes: N images, feature maps of Hi x Wi positions with A anchors each, R = sum of Hi * Wi * A.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage
from torch import nn
from torchvision.ops import batched_nms, box_iou

from ..anchor_generator import DefaultAnchorGenerator
from ..box_regression import Box2BoxTransform, box_regression_loss, check_loss_type
from ..matcher import Matcher
from ..sampling import subsample_labels


class StandardRPNHead(nn.Module):
    """3x3 convolutions, then a 1x1 convolution each for objectness and box deltas; shared by all levels."""

    def __init__(self, *, in_channels: int, num_anchors: int, conv_dims: Sequence[int]):
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
        self.anchor_deltas = nn.Conv2d(in_channels, num_anchors * 4, kernel_size=1)
        for layer in (*convs, self.objectness_logits, self.anchor_deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, features: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Objectness logits (N, A, Hi, Wi) and box deltas (N, A * 4, Hi, Wi) of every level."""
        hidden = [self.conv(level) for level in features]
        return [self.objectness_logits(h) for h in hidden], [self.anchor_deltas(h) for h in hidden]


class RPN(nn.Module):
    """Finds boxes that are likely to hold an object of any class."""

    def __init__(self, cfg: CfgNode, input_shape: dict[str, ShapeSpec]):
        """``input_shape`` of the backbone's feature maps by name; ValueError if MODEL.RPN.IN_FEATURES do not agree."""
        super().__init__()
        rpn = cfg.MODEL.RPN
        self.in_features = list(rpn.IN_FEATURES)
        shapes = [input_shape[name] for name in self.in_features]
        self.anchor_generator = DefaultAnchorGenerator(cfg, shapes)
        channels, num_anchors = {shape.channels for shape in shapes}, self.anchor_generator.num_anchors
        if len(channels) != 1 or len(set(num_anchors)) != 1:
            raise ValueError(
                "MODEL.RPN.IN_FEATURES share one head, so they need the same channels and anchors per position, "
                f"got {sorted(channels)} channels and {num_anchors} anchors"
            )
        self.rpn_head = StandardRPNHead(
            in_channels=shapes[0].channels, num_anchors=num_anchors[0], conv_dims=rpn.CONV_DIMS
        )
        self.anchor_matcher = Matcher(rpn.IOU_THRESHOLDS, rpn.IOU_LABELS, allow_low_quality_matches=True)
        self.box2box_transform = Box2BoxTransform(weights=rpn.BBOX_REG_WEIGHTS)
        self.batch_size_per_image = rpn.BATCH_SIZE_PER_IMAGE
        self.positive_fraction = rpn.POSITIVE_FRACTION
        # By self.training.
        self.pre_nms_topk = {True: rpn.PRE_NMS_TOPK_TRAIN, False: rpn.PRE_NMS_TOPK_TEST}
        self.post_nms_topk = {True: rpn.POST_NMS_TOPK_TRAIN, False: rpn.POST_NMS_TOPK_TEST}
        self.nms_thresh = rpn.NMS_THRESH
        self.loss_weight = {
            "loss_rpn_cls": rpn.LOSS_WEIGHT,
            "loss_rpn_loc": rpn.BBOX_REG_LOSS_WEIGHT * rpn.LOSS_WEIGHT,
        }
        self.box_reg_loss_type = rpn.BBOX_REG_LOSS_TYPE
        check_loss_type(self.box_reg_loss_type, "MODEL.RPN.BBOX_REG_LOSS_TYPE")
        self.smooth_l1_beta = rpn.SMOOTH_L1_BETA

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
            matches, labels = self.anchor_matcher(box_iou(truth.gt_boxes.tensor, all_anchors.tensor))
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
            torch.cat(pred_anchor_deltas, dim=1)[image_index, anchor_index],
            torch.stack(gt_boxes)[image_index, anchor_index],
            self.box_reg_loss_type,
            self.smooth_l1_beta,
        )
        loss_cls = F.binary_cross_entropy_with_logits(
            torch.cat(pred_objectness_logits, dim=1)[sampled], labels[sampled].float(), reduction="sum"
        )
        num_to_sample = self.batch_size_per_image * num_images
        losses = {"loss_rpn_cls": loss_cls / num_to_sample, "loss_rpn_loc": loss_loc / num_to_sample}
        return {name: loss * self.loss_weight[name] for name, loss in losses.items()}

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
        all_levels = torch.cat(levels)
        return [
            self._select(image_boxes, image_scores, all_levels, image_size)
            for image_boxes, image_scores, image_size in zip(
                torch.cat(boxes, dim=1), torch.cat(scores, dim=1), image_sizes
            )
        ]

    def _select(
        self, boxes: torch.Tensor, scores: torch.Tensor, levels: torch.Tensor, image_size: tuple[int, int]
    ) -> Instances:
        """Clip one image's candidates, drop empty ones, suppress duplicates within every level."""
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
        nonempty = clipped.nonempty()
        clipped, scores, levels = clipped[nonempty], scores[nonempty], levels[nonempty]
        keep = batched_nms(clipped.tensor, scores, levels, self.nms_thresh)[: self.post_nms_topk[self.training]]
        return Instances(image_size, proposal_boxes=clipped[keep], objectness_logits=scores[keep])
