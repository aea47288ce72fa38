"""How large the pieces of work of the GPU kernels are. `tools/gpu_report.py --only tune` measures others."""

from __future__ import annotations

import torch

SMALL_ROWS = 64
"""Up to so many rows, a tile has as few as it may, so that there are enough tiles for all processors."""
LARGE_GROUP = 2048
"""Groups of fewer queries are windows, of which there are enough programs."""


def linear_tile(rows: int, outputs: int) -> dict[str, int]:
    """The tile of a linear layer's result, and how it is computed."""
    if rows <= SMALL_ROWS:
        return {"ROWS": 16, "COLUMNS": 64, "DEPTH": 128, "num_warps": 4, "num_stages": 4}
    if rows <= 1024:
        return {"ROWS": 64, "COLUMNS": 64 if outputs <= 1024 else 128, "DEPTH": 64, "num_warps": 4, "num_stages": 4}
    return {"ROWS": 128, "COLUMNS": 128, "DEPTH": 64, "num_warps": 8, "num_stages": 4}


def attention_tile(dtype: torch.dtype, channels: int, queries: int) -> dict[str, int]:
    """Queries and keys that a program of attention holds at a time; larger ones do not fit into its registers.

    Args:
        queries: of a group; 0: those that need new sums.
    """
    is_window = 0 < queries < LARGE_GROUP
    if dtype is torch.float32:
        if channels > 64:
            return {"QUERIES": 32, "KEYS": 16, "num_warps": 4, "num_stages": 2}
        side = 32 if is_window else 64
        return {"QUERIES": side, "KEYS": side, "num_warps": 4, "num_stages": 2}
    if channels > 64:
        return {"QUERIES": 64, "KEYS": 32, "num_warps": 4, "num_stages": 2}
    return {"QUERIES": 64, "KEYS": 32 if is_window else 64, "num_warps": 4, "num_stages": 3}


def exchange_tile(dtype: torch.dtype, channels: int) -> dict[str, int]:
    """The same where terms of changed keys are exchanged, which meets each key in two versions."""
    if dtype is torch.float32:
        side = 32 if channels <= 64 else 16
        return {"QUERIES": side, "KEYS": side, "num_warps": 4, "num_stages": 1}
    if channels > 64:
        return {"QUERIES": 64, "KEYS": 32, "num_warps": 8, "num_stages": 2}
    return {"QUERIES": 64, "KEYS": 32, "num_warps": 4, "num_stages": 3}


def position_queries(dtype: torch.dtype, channels: int) -> int:
    """Queries whose position terms a program computes."""
    if dtype is torch.float32:
        return 64 if channels <= 64 else 32
    return 128
