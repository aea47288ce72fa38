"""How fast this machine multiplies matrices: what no way of running a detector can beat."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from ..eventful.linear import Linear
from ..modeling.backbone import synchronize

SHAPE = (2048, 768, 3072)
"""Rows, inner size and columns: an MLP's first layer."""
REPEATS = 9


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Billions of floating point operations (two to a MAC) per second: the best of some products, by PyTorch's function
    and by the layer that the models have, which may run in compiled kernels."""
    rows, inner, columns = SHAPE
    x = torch.randn(rows, inner, device=device)
    layer = Linear(inner, columns, bias=False).to(device)
    layer.compute_dtype = dtype
    short_x, short_weight = x.to(dtype), layer.weight.detach().to(dtype)
    ways = (lambda: torch.nn.functional.linear(short_x, short_weight), lambda: layer(x))
    with torch.no_grad():
        seconds = min(_seconds(way, device) for _ in range(REPEATS) for way in ways)
    return 2 * rows * inner * columns / seconds / 1e9


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


def median_or_none(values: list[float]) -> float | None:
    return statistics.median(values) if values else None
