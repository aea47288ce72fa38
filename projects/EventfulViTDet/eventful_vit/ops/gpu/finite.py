"""Looking for NaN and infinity on a GPU, in one pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import gating as operators
from .launch import fits

VALUES = 8192
"""Values that one program looks at."""


@triton.jit
def _look(images, result, values, BLOCK: tl.constexpr):
    """Write a zero for a stream if one of these values is not finite."""
    stream = tl.program_id(1)
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < values
    size = tl.abs(tl.load(images + stream.to(tl.int64) * values + place, mask=inside).to(tl.float32))
    # Written so that NaN counts. All programs that find something write the same.
    found = tl.max((inside & ~(size < float("inf"))).to(tl.int32), axis=0)
    if found != 0:
        tl.store(result + stream, 0)


def finite(images: Tensor) -> Tensor:
    if not fits(images):  # not the reference, which waits for the device
        return images.isfinite().flatten(1).all(dim=1)
    result = torch.ones(len(images), dtype=torch.uint8, device=images.device)
    if images.numel():
        values = images.numel() // len(images)
        _look[(triton.cdiv(values, VALUES), len(images))](images, result, values, BLOCK=VALUES)
    return result.view(torch.bool)


IMPLEMENTATIONS = {operators.finite: finite}
