from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class ShapeSpec:
    """What a module promises about a feature map: channels, size and stride in pixels; None where unknown."""

    channels: int | None = None
    height: int | None = None
    width: int | None = None
    stride: int | None = None


class LayerNorm(nn.Module):
    """Layer norm over the channels of every position of an (N, C, H, W) map."""

    def __init__(self, normalized_shape: int, eps: float = 1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(normalized_shape))
        self.bias = nn.Parameter(torch.zeros(normalized_shape))
        self.eps = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # One fused pass over (N, H, W, C); the result stays in that memory layout, which convolutions like.
        normed = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.eps)
        return normed.permute(0, 3, 1, 2)


_NORMS = {"LN": LayerNorm, "BN": nn.BatchNorm2d, "GN": lambda channels: nn.GroupNorm(32, channels)}


def get_norm(norm: str, out_channels: int) -> nn.Module | None:
    """The layer called ``norm``; None for ""."""
    if not norm:
        return None
    if norm not in _NORMS:
        raise ValueError(f"NORM = {norm!r} (a key of MODEL) is unknown: use one of {', '.join(_NORMS)} or ''")
    return _NORMS[norm](out_channels)


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
