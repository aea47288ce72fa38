"""What the GPU can do, as far as the sizes and ways of the kernels depend on it."""

from __future__ import annotations

from functools import cache

import torch

OLDEST = (8, 0)
"""The compute capability of NVIDIA's oldest GPU that the kernels support."""
LARGE_GPUS = {(8, 0), (9, 0), (10, 0), (10, 3)}
"""Compute capabilities of data-centre GPUs: they multiply TF32 eight times as fast as float32, and a multiprocessor has
160 kB of shared memory or more, not 100."""


def capability(device: torch.device | None = None) -> tuple[int, int] | None:
    """The compute capability of a GPU, or of the current one; None where there is none, as in Triton's interpreter."""
    is_there = torch.cuda.is_available() and (device is None or device.type == "cuda")
    return torch.cuda.get_device_capability(device) if is_there else None


def is_too_old(device: torch.device | None = None) -> bool:
    """Whether a GPU, or the current one, is older than the kernels support."""
    found = capability(device)
    return found is not None and found < OLDEST


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a GPU has instructions for bfloat16. PyTorch's own answer counts emulation, which is slow, as support."""
    found = capability(device)
    return found is None or found >= (8, 0)


def is_large() -> bool:
    """Whether the current GPU is one of LARGE_GPUS."""
    return capability() in LARGE_GPUS


def multiplies_by_groups() -> bool:
    """Whether four warps of the GPU multiply a tile together: an H100's and a B200's, not those of RTX cards."""
    found = capability()
    return found is not None and (9, 0) <= found < (12, 0)


@cache
def has_descriptors(device: torch.device) -> bool:
    """Whether a GPU has the unit that tensor descriptors are for (H100 and later). Triton's interpreter knows them,
    too."""
    found = capability(device)
    return found is None or found >= (9, 0)
