"""How fast this machine multiplies matrices: what no way of running a detector can beat."""

from __future__ import annotations

import statistics
import time

import torch

from ..modeling.backbone import synchronize

SHAPE = (2048, 768, 3072)
"""Rows, inner size and columns: an MLP's first layer."""
REPEATS = 9


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Billions of floating point operations (two to a MAC) per second, the best of some products."""
    rows, inner, columns = SHAPE
    a = torch.randn(rows, inner, device=device).to(dtype)
    b = torch.randn(columns, inner, device=device).to(dtype)
    seconds = []
    with torch.no_grad():
        for _ in range(REPEATS):
            synchronize(device)
            start = time.perf_counter()
            torch.nn.functional.linear(a, b)
            synchronize(device)
            seconds.append(time.perf_counter() - start)
    return 2 * rows * inner * columns / min(seconds) / 1e9


def median_or_none(values: list[float]) -> float | None:
    return statistics.median(values) if values else None
