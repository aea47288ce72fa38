"""How large the pieces of work of the GPU kernels are. `tools/gpu_report.py --only tune` measures others."""

from __future__ import annotations

import torch

SMALL_ROWS = 64
"""Up to so many rows, a tile has as few as it may, so that there are enough tiles for all processors."""
LARGE_GROUP = 2048
"""From so many queries of a group on, large tiles still occupy all processors."""


def linear_tile(rows: int, outputs: int) -> dict[str, int]:
    """The tile of a linear layer's result, and how it is computed."""
    if rows <= SMALL_ROWS:
        return {"ROWS": 16, "COLUMNS": 64, "DEPTH": 128, "num_warps": 4, "num_stages": 4}
    if rows <= 1024:
        return {"ROWS": 64, "COLUMNS": 64 if outputs <= 1024 else 128, "DEPTH": 64, "num_warps": 4, "num_stages": 4}
    return {"ROWS": 128, "COLUMNS": 128, "DEPTH": 64, "num_warps": 8, "num_stages": 4}


def attention_tile(dtype: torch.dtype, channels: int, queries: int) -> dict[str, int]:
    """Queries and keys that a program of attention holds at a time; larger ones do not fit into its registers."""
    if dtype is torch.float32:
        return {"QUERIES": 32, "KEYS": 32 if channels <= 64 else 16, "num_warps": 8, "num_stages": 2}
    if channels > 64:
        return {"QUERIES": 64, "KEYS": 32, "num_warps": 4, "num_stages": 2}
    if queries >= LARGE_GROUP:
        return {"QUERIES": 128, "KEYS": 64, "num_warps": 8, "num_stages": 3}
    return {"QUERIES": 64, "KEYS": 64, "num_warps": 4, "num_stages": 2}


def exchange_tile(dtype: torch.dtype, channels: int) -> dict[str, int]:
    """The same where terms of changed keys are exchanged, which meets each key in two versions."""
    if dtype is torch.float32:
        return {"QUERIES": 32, "KEYS": 32 if channels <= 64 else 16, "num_warps": 8, "num_stages": 2}
    return {"QUERIES": 64, "KEYS": 32, "num_warps": 8 if channels > 64 else 4, "num_stages": 2}
