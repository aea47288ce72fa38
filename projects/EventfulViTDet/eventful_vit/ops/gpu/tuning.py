"""How large the pieces of work of the GPU kernels are. `tools/gpu_report.py --only tune` measures others."""

from __future__ import annotations

import torch

from .. import tf32
from . import device_facts

SMALL_ROWS = 64
"""Up to so many rows, a tile has as few as it may, so that there are enough tiles for all processors."""
LARGE_GROUP = 2048
"""Groups of fewer queries are windows, of which there are enough programs."""
PRECISE_TILE = {"ROWS": 64, "COLUMNS": 64, "DEPTH": 32, "TMA": False, "num_warps": 4, "num_stages": 3}
"""The tile of a linear layer's result in float32, where it is computed by our kernel."""


def uses_library(rows: int, inputs: int, outputs: int, finished: bool) -> bool:
    """Whether PyTorch's library computes a linear layer in a short type.

    Args:
        finished: GELU or a sum follows. Our kernel does that on the way out; after the library it takes another kernel.
    """
    if rows <= SMALL_ROWS:
        return False
    return not finished or (rows > 1024 and inputs > 1024)


def precise_products(rows: int) -> bool:
    """Whether our kernel computes linear layers in float32, each product as three of TF32, instead of the library.

    That is 1.4 to 1.9 times as fast on an H200, and closer to float64. Consumer GPUs multiply TF32 no faster than
    float32.
    """
    return rows > SMALL_ROWS and device_facts.is_large() and not tf32.in_products()


def linear_tile(rows: int, outputs: int) -> dict[str, int]:
    """The tile of a linear layer's result, and how it is computed. TMA: operands are read by tensor descriptors, where
    the GPU and the matrices allow it."""
    if rows <= SMALL_ROWS:
        return {"ROWS": 64, "COLUMNS": 32, "DEPTH": 64, "TMA": False, "num_warps": 4, "num_stages": 6}
    if rows <= 1024:
        return {"ROWS": 64, "COLUMNS": 128, "DEPTH": 64, "TMA": True, "num_warps": 4, "num_stages": 4}
    return {"ROWS": 128, "COLUMNS": 128, "DEPTH": 64, "TMA": True, "num_warps": 4, "num_stages": 3}


def attention_tile(dtype: torch.dtype, channels: int, queries: int) -> dict[str, int]:
    """Queries and keys that a program of attention holds at a time; larger ones do not fit into its registers.

    Args:
        queries: of a group; 0: those that need new sums.
    """
    if channels > 128:
        return {"QUERIES": 16, "KEYS": 16, "num_warps": 4, "num_stages": 1}
    if dtype is torch.float32 and channels > 64:
        return {"QUERIES": 32, "KEYS": 16, "num_warps": 4, "num_stages": 2}
    if dtype is torch.float32 and 0 < queries < LARGE_GROUP:
        return {"QUERIES": 32, "KEYS": 32, "num_warps": 4, "num_stages": 2}
    if dtype is torch.float32:
        return {"QUERIES": 64, "KEYS": 64, "num_warps": 4, "num_stages": 2}
    if channels > 64:
        return {"QUERIES": 64, "KEYS": 32, "num_warps": 4, "num_stages": 2}
    if 0 < queries < LARGE_GROUP:
        return {"QUERIES": 64, "KEYS": 32, "num_warps": 4, "num_stages": 3}
    return {"QUERIES": 64, "KEYS": 64, "num_warps": 4, "num_stages": 3}


def exchange_tile(dtype: torch.dtype, channels: int) -> dict[str, int]:
    """The same where terms of changed keys are exchanged; each key takes part in an old and a new version."""
    if channels > 128:
        return {"QUERIES": 16, "KEYS": 16, "num_warps": 4, "num_stages": 1}
    if dtype is torch.float32 and channels > 64:
        return {"QUERIES": 16, "KEYS": 16, "num_warps": 4, "num_stages": 1}
    if dtype is torch.float32:
        return {"QUERIES": 32, "KEYS": 32, "num_warps": 4, "num_stages": 2 if device_facts.is_large() else 1}
    if channels > 64:
        # From an H100 on, four warps multiply 64 rows together. With eight, others need fewer registers each.
        warps = 4 if device_facts.multiplies_by_groups() else 8
        return {"QUERIES": 64, "KEYS": 32, "num_warps": warps, "num_stages": 2}
    # With so many registers, three programs fit into a processor of an H200, not two: 67 microseconds instead of 89.
    return {"QUERIES": 64, "KEYS": 32, "num_warps": 4, "num_stages": 2, "maxnreg": 168}


def split_keys(streams: int, heads: int) -> int:
    """Into how many parts the keys of queries that need new sums are split: these are too few to occupy a GPU."""
    return max(1, min(4, 96 // (streams * heads) // 2 * 2))


def position_queries(dtype: torch.dtype, channels: int) -> int:
    """Queries whose position terms a program computes."""
    if dtype is torch.float32:
        return 64 if channels <= 64 else 32 if channels <= 128 else 16
    return 128 if channels <= 128 else 32
