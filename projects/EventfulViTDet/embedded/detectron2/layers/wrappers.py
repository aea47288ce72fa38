from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torchvision.ops
from torch import nn


@dataclass
class ShapeSpec:
    """What a module promises about a feature map: channels, size and stride in pixels; None where unknown."""

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None


class Conv2d(nn.Conv2d):
    """A convolution, then ``norm`` (whose weights are ``<name>.norm.*``), then ``activation``, where given."""

    def __init__(self, *args, norm: nn.Module | None = None, activation: Callable | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.norm = norm
        self.activation = activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = super().forward(x)
        if self.norm is not None:
            x = self.norm(x)
        return x if self.activation is None else self.activation(x)


def cat(tensors: Sequence[torch.Tensor], dim: int = 0) -> torch.Tensor:
    """``torch.cat`` that returns a lone tensor as it is, uncopied."""
    return tensors[0] if len(tensors) == 1 else torch.cat(tuple(tensors), dim)


def batched_nms(boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Non-maximum suppression of boxes (N, 4) with scores (N,) among those of the same group in idxs (N,).

    Returns the indices of the boxes that stay, best score first. Computes in float32: half precision cannot
    hold the offsets that keep the groups apart.
    """
    return torchvision.ops.batched_nms(boxes.float(), scores.float(), idxs, iou_threshold)
