"""What all GPU kernels have in common: what they can take, and how products are computed."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import tf32

TYPES = (torch.float32, torch.float16, torch.bfloat16)
"""Types that the kernels read and write. Inside they compute in float32."""
_INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def product(a, b, total, PRECISION: tl.constexpr):
    """total + a @ b, summed in float32."""
    if _INTERPRETED:  # which has no products of bfloat16
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, total, input_precision=PRECISION)


def precision(dtype: torch.dtype) -> str:
    """How products of float32 are computed: with TF32 only where PyTorch may, too. Otherwise each is the sum of three
    of TF32, whose error is no larger than that of float32's own, in a seventh of the time."""
    return "tf32" if dtype is torch.float32 and tf32.in_products() else "tf32x3"


def fits(*tensors: Tensor | None) -> bool:
    """Whether the kernels can take these as plain arrays."""
    return all(x is None or (x.dtype in TYPES and x.is_contiguous()) for x in tensors)


def power_of_two(size: int, least: int = 16) -> int:
    """The next power of two: pieces of work have such sizes. Matrix products need 16 of everything."""
    return max(least, triton.next_power_of_2(size))
