"""Non-maximum suppression on a GPU with fixed sizes: nothing waits for the host, and a CUDA graph can hold it.

M boxes of an image are in groups (pyramid levels, or all in one group with labels), sorted by score in each. One kernel
compares all pairs and packs the answers into bits, 32 boxes a word; another walks through the boxes in order, one
program per group, until as many stay as can be used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

WORD = 32
"""Boxes of a word: the bits of an int32. The kernels say 32 themselves."""
ROWS = 32
"""Boxes that a program compares with later ones."""
WORDS = 2
"""Words of each row that a program fills."""
REST = 1024
"""Boxes that a program marks at a time behind the last one that it looked at."""


@triton.jit
def _compare(
    boxes, labels, begins, used, bits, candidates, words, groups, threshold, ROWS: tl.constexpr, WORDS: tl.constexpr
):
    """Which later boxes of its group each box would suppress: (B, M, words) of bits."""
    image, group = tl.program_id(2) // groups, tl.program_id(2) % groups
    begin = tl.load(begins + group)
    size = tl.load(begins + group + 1) - begin
    if used is not None:
        size = tl.minimum(size, tl.load(used + image))
    first_row, first_word = tl.program_id(0) * ROWS, tl.program_id(1) * WORDS
    # Words of boxes before a row are never looked at.
    if (first_row >= size) | (first_word * 32 >= size) | ((first_word + WORDS) * 32 <= first_row):
        return
    row, column = first_row + tl.arange(0, ROWS), first_word * 32 + tl.arange(0, WORDS * 32)
    in_row, in_column = row < size, column < size
    base = image.to(tl.int64) * candidates + begin
    one, other = boxes + (base + row) * 4, boxes + (base + column) * 4
    left, top = tl.load(one, mask=in_row, other=0.0), tl.load(one + 1, mask=in_row, other=0.0)
    right, bottom = tl.load(one + 2, mask=in_row, other=0.0), tl.load(one + 3, mask=in_row, other=0.0)
    others_left, others_top = tl.load(other, mask=in_column, other=0.0), tl.load(other + 1, mask=in_column, other=0.0)
    others_right = tl.load(other + 2, mask=in_column, other=0.0)
    others_bottom = tl.load(other + 3, mask=in_column, other=0.0)
    area = (right - left) * (bottom - top)
    others_area = (others_right - others_left) * (others_bottom - others_top)
    width = tl.minimum(right[:, None], others_right[None, :]) - tl.maximum(left[:, None], others_left[None, :])
    height = tl.minimum(bottom[:, None], others_bottom[None, :]) - tl.maximum(top[:, None], others_top[None, :])
    common = tl.maximum(width, 0.0) * tl.maximum(height, 0.0)
    overlaps = tl.div_rn(common, area[:, None] + others_area[None, :] - common) > threshold
    overlaps &= (column[None, :] > row[:, None]) & in_row[:, None] & in_column[None, :]
    if labels is not None:
        label = tl.load(labels + base + row, mask=in_row, other=0)
        overlaps &= label[:, None] == tl.load(labels + base + column, mask=in_column, other=0)[None, :]
    bit = overlaps.to(tl.int32) << (column % 32)[None, :]
    packed = tl.sum(tl.reshape(bit, (ROWS, WORDS, 32)), axis=2)
    word = first_word + tl.arange(0, WORDS)[None, :]
    tl.store(bits + (base + row)[:, None] * words + word, packed, mask=in_row[:, None] & (word < words))


@triton.jit
def _either(a, b):
    return a | b


@triton.jit
def _walk(bits, allowed, begins, used, keep, candidates, words, groups, most, WORDS: tl.constexpr, REST: tl.constexpr):
    """Which boxes of a group stay: 32 of them at a time, against those that stay before them."""
    image, group = tl.program_id(0) // groups, tl.program_id(0) % groups
    begin = tl.load(begins + group)
    all_boxes = tl.load(begins + group + 1) - begin
    size = all_boxes
    if used is not None:
        size = tl.minimum(size, tl.load(used + image))
    base = image.to(tl.int64) * candidates + begin
    lane, word = tl.arange(0, 32), tl.arange(0, WORDS)
    removed = tl.zeros((WORDS,), tl.int32)
    block, kept = size * 0, size * 0
    while (block * 32 < size) & (kept < most):
        row = block * 32 + lane
        may_stay = row < size
        if allowed is not None:
            may_stay &= tl.load(allowed + base + row, mask=row < size, other=0) != 0
        gone = tl.sum(tl.where(word == block, removed, 0), axis=0)
        gone |= tl.sum(tl.where(may_stay, 0, 1 << lane), axis=0)
        for number in tl.static_range(32):
            place = block * 32 + number
            suppressed = tl.load(bits + (base + place) * words + block, mask=place < size, other=0)
            gone |= tl.where(((gone >> number) & 1) != 0, 0, suppressed)
        stays = ((gone >> lane) & 1) == 0
        tl.store(keep + base + row, stays.to(tl.int8), mask=row < size)
        later = stays[:, None] & (word > block)[None, :] & (word < words)[None, :] & (row < size)[:, None]
        # Words before the block of a row may never have been written.
        theirs = tl.load(bits + (base + row)[:, None] * words + word[None, :], mask=later, other=0)
        removed |= tl.reduce(theirs, 0, _either)
        kept += tl.sum(stays.to(tl.int32), axis=0)
        block += 1
    for start in range(tl.minimum(block * 32, size), all_boxes, REST):
        rest = start + tl.arange(0, REST)
        tl.store(keep + base + rest, tl.zeros((REST,), tl.int8), mask=rest < all_boxes)


def suppress(
    boxes: Tensor, allowed: Tensor | None, groups: Groups, threshold: float, labels: Tensor | None = None, *,
    used: Tensor | None = None, most: int | None = None,
) -> Tensor:  # fmt: skip
    """Which boxes stay, as `torchvision.ops.nms` chooses them in each group, and among boxes of a label only.

    Args:
        boxes: (B, M, 4) float32, best first in every group.
        allowed: (B, M) bool; the others neither stay nor suppress. None: all are.
        labels: (B, M) int64; None: all the same.
        used: (B,) int32, how many boxes of each group there are; None: as many as there is room for.
        most: of how many that stay in a group one has to know; None: of all. Some more may be told.

    Returns:
        (B, M) bool.
    """
    images, candidates, _ = boxes.shape
    keep = torch.empty(images, candidates, dtype=torch.bool, device=boxes.device)
    if not boxes.numel():
        return keep
    words = -(-groups.largest // WORD)
    bits = torch.empty(images, candidates, words, dtype=torch.int32, device=boxes.device)
    programs = (triton.cdiv(groups.largest, ROWS), triton.cdiv(words, WORDS), images * groups.number)
    # Areas are products that are rounded, as on a CPU: no fused multiplication and addition.
    _compare[programs](
        boxes.contiguous(), labels, groups.begins, used, bits, candidates, words, groups.number, round_down(threshold),
        ROWS=ROWS, WORDS=WORDS, enable_fp_fusion=False,
    )  # fmt: skip
    _walk[(images * groups.number,)](
        bits, None if allowed is None else allowed.contiguous().view(torch.int8), groups.begins, used,
        keep.view(torch.int8), candidates, words, groups.number, candidates if most is None else most,
        WORDS=triton.next_power_of_2(words), REST=REST, num_warps=1,
    )  # fmt: skip
    return keep


class Groups:
    """Where the groups of an image's boxes begin."""

    def __init__(self, sizes: Sequence[int], device: torch.device) -> None:
        self.number = len(sizes)
        self.largest = max(sizes)
        self.begins = torch.tensor([sum(sizes[:i]) for i in range(len(sizes) + 1)], dtype=torch.int32, device=device)
        """(groups + 1,)"""


def round_down(threshold: float) -> float:
    """The largest float32 that is not above: a float32 is above both or neither."""
    nearest = np.float32(threshold)
    if float(nearest) > threshold:
        nearest = np.nextafter(nearest, np.float32(-math.inf))
    return float(nearest)
