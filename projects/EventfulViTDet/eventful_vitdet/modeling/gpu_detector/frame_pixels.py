"""Frames as a detector takes them, on a GPU: normalised and padded in one pass."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 2048
"""Pixels of a channel that a program takes."""


@triton.jit
def _normalise(frames, mean, deviation, out, channels, height, width, padded_height, padded_width, BLOCK: tl.constexpr):
    """Some pixels of a channel of an image, with their padding."""
    channel, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    plane = image * channels + channel
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    y, x = pixel // padded_width, pixel % padded_width
    inside = (y < height) & (x < width)
    value = tl.load(frames + plane * height * width + y * width + x, mask=inside, other=0).to(tl.float32)
    spread = tl.zeros((BLOCK,), tl.float32) + tl.load(deviation + channel)
    value = tl.where(inside, tl.div_rn(value - tl.load(mean + channel), spread), 0.0)
    tl.store(out + plane * padded_height * padded_width + pixel, value, mask=y < padded_height)


def normalise(frames: Tensor, mean: Tensor, deviation: Tensor, out: Tensor) -> None:
    """Write (frames - mean) / deviation, with zeros below and to the right, where frames are smaller.

    Args:
        frames: (B, C, H, W) of any type.
        mean, deviation: (C, 1, 1) float32.
        out: (B, C, H', W') float32, in one piece.
    """
    images, channels, height, width = frames.shape
    grid = (triton.cdiv(out.shape[2] * out.shape[3], BLOCK), channels, images)
    _normalise[grid](
        frames.contiguous(), mean.contiguous(), deviation.contiguous(), out, channels, height, width, *out.shape[2:],
        BLOCK=BLOCK,
    )  # fmt: skip
