from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn


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


def get_norm(norm: str | Callable | None, out_channels: int) -> nn.Module | None:
    """The layer called ``norm`` (or made by it, if it is a callable); None for "" and None."""
    if not norm:
        return None
    if isinstance(norm, str):
        if norm not in _NORMS:
            raise ValueError(f"unknown normalisation {norm!r}: use one of {', '.join(_NORMS)} or ''")
        norm = _NORMS[norm]
    return norm(out_channels)
