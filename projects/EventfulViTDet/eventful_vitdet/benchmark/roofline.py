"""How fast this machine multiplies matrices: what no way of running a detector can beat."""

from __future__ import annotations

import torch
from eventful_vit.layers import run_linear
from torch import nn

from ..timing import timed_call

SHAPE = (2048, 768, 3072)
"""Rows, inner size and columns: an MLP's first layer."""
REPEATS = 9


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Billions of floating point operations (two to a MAC) per second: the best of some products, by PyTorch's function
    and by the layer that the models have, which may run in compiled kernels."""
    rows, inner, columns = SHAPE
    x = torch.randn(rows, inner, device=device)
    layer = nn.Linear(inner, columns, bias=False).to(device)
    short_x, short_weight = x.to(dtype), layer.weight.detach().to(dtype)
    ways = (lambda: torch.nn.functional.linear(short_x, short_weight), lambda: run_linear(layer, x, dtype))
    with torch.no_grad():
        seconds = min(timed_call(way, device)[1] for _ in range(REPEATS) for way in ways)
    return 2 * rows * inner * columns / seconds / 1e9
