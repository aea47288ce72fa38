"""Masks of the detections. Shapes: R regions of all images, K classes, masks of M x M cells that fill a box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from torch import nn

from .relu_layers import init_for_relu, make_convolution


class MaskRCNNConvUpsampleHead(nn.Sequential):
    """3x3 convolutions ("mask_fcn1", ...), doubled resolution ("deconv"), a mask for every class ("predictor")."""

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        conv_dims: Sequence[int],
        conv_norm: str = "",
        loss_weight: float = 1.0,
    ):
        """
        Args:
            num_classes: 1 for masks that all classes share.
            conv_dims: output channels of the convolutions, and last those of the doubling.
            conv_norm: as in ``get_norm``; convolutions have a bias only without it.
        """
        super().__init__()
        self.loss_weight = loss_weight
        channels = input_shape.channels
        for index, dim in enumerate(conv_dims[:-1], start=1):
            self.add_module(f"mask_fcn{index}", make_convolution(channels, dim, conv_norm))
            channels = dim
        self.deconv = nn.ConvTranspose2d(channels, conv_dims[-1], 2, stride=2)
        init_for_relu(self.deconv)
        self.deconv_relu = nn.ReLU()
        self.predictor = Conv2d(conv_dims[-1], num_classes, 1)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """All arguments from MODEL.ROI_MASK_HEAD. Raises ValueError where it names another head."""
        head = cfg.MODEL.ROI_MASK_HEAD
        if head.NAME != "MaskRCNNConvUpsampleHead":
            raise ValueError(
                f"MODEL.ROI_MASK_HEAD.NAME is {head.NAME!r}: the embedded Detectron2 has "
                "'MaskRCNNConvUpsampleHead' only"
            )
        return {
            "input_shape": input_shape,
            "num_classes": 1 if head.CLS_AGNOSTIC_MASK else cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            "conv_dims": [head.CONV_DIM] * (head.NUM_CONV + 1),
            "conv_norm": head.NORM,
        }

    def layers(self, x: torch.Tensor) -> torch.Tensor:
        """Region features (R, C, M / 2, M / 2) to mask logits (R, K or 1, M, M)."""
        return super().forward(x)

    def forward(self, x: torch.Tensor, instances: list[Instances]) -> dict[str, torch.Tensor] | list[Instances]:
        """
        Args:
            x: features of the boxes of ``instances``, image after image: in training of foreground proposals
                with ``gt_classes`` and ``gt_masks``, in inference of detections with ``pred_classes``.

        Returns:
            In training {"loss_mask"}; in inference the detections, which have got ``pred_masks`` (N, 1, M, M).
        """
        logits = self.layers(x)
        if self.training:
            return {"loss_mask": mask_rcnn_loss(logits, instances) * self.loss_weight}
        mask_rcnn_inference(logits, instances)
        return instances


def mask_rcnn_loss(pred_mask_logits: torch.Tensor, instances: list[Instances]) -> torch.Tensor:
    """The mean cross-entropy of all cells of the masks of the regions' true classes.

    Args:
        pred_mask_logits: (R, K or 1, M, M), of the regions in ``instances``, in their order.
        instances: per image, with ``proposal_boxes``, ``gt_classes`` and ``gt_masks``; what has none is no foreground.
    """
    side = pred_mask_logits.shape[-1]
    filled = [image for image in instances if len(image)]
    if not filled:
        return pred_mask_logits.sum() * 0  # so that every process has gradients for the same parameters
    truth = torch.cat([image.gt_masks.crop_and_resize(image.proposal_boxes.tensor, side) for image in filled])
    truth = truth.to(pred_mask_logits.device)
    logits = _of_class(pred_mask_logits, torch.cat([image.gt_classes for image in filled]))
    _log_accuracy(logits, truth)
    return F.binary_cross_entropy_with_logits(logits, truth.to(logits.dtype))


def mask_rcnn_inference(pred_mask_logits: torch.Tensor, pred_instances: list[Instances]) -> None:
    """Give detections ``pred_masks`` (N, 1, M, M), from 0 to 1, from the logits (R, K or 1, M, M) of all of them."""
    classes = torch.cat([image.pred_classes for image in pred_instances])
    masks = _of_class(pred_mask_logits, classes)[:, None].sigmoid()
    for image, of_image in zip(pred_instances, masks.split([len(image) for image in pred_instances])):
        image.pred_masks = of_image


def _of_class(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """(R, M, M): of every region's masks (R, K or 1, M, M), that of its class (R,)."""
    if logits.shape[1] == 1:
        return logits[:, 0]
    return logits[torch.arange(len(logits), device=logits.device), classes.to(logits.device)]


def _log_accuracy(logits: torch.Tensor, truth: torch.Tensor) -> None:
    """Put into the event storage which share of the cells is right, and how many of either kind are wrong."""
    wrong = (logits > 0) != truth
    inside = truth.sum().item()
    storage = get_event_storage()
    storage.put_scalar("mask_rcnn/accuracy", 1 - wrong.sum().item() / max(wrong.numel(), 1))
    storage.put_scalar("mask_rcnn/false_positive", (wrong & ~truth).sum().item() / max(truth.numel() - inside, 1))
    storage.put_scalar("mask_rcnn/false_negative", (wrong & truth).sum().item() / max(inside, 1))
