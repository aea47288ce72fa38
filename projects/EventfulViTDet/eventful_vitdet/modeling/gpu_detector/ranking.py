"""The best candidates of each image in their order on a GPU, with fixed sizes, in one launch.

A program finds out how many candidates come before its own, and writes these to their places. That is quadratic work,
but it takes less time than the dozen launches of a sort.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from .image_sizes import ImageSizes

RANKED = 8
"""Candidates that one program finds the ranks of."""
CHUNK = 512
"""Candidates that it compares them with at a time."""
MOST_PAIRS = 2**29
"""With more pairs of candidates than this, in all images, a sort comes first."""


@dataclass(frozen=True)
class Best:
    """T candidates of each image, best first. Where there are fewer, zeros follow."""

    boxes: Tensor
    """(B, T, 4)"""
    placed: Tensor
    """The same in pixels of the images as they were before resizing; zeros where that was not asked for."""
    labels: Tensor
    """(B, T) int64; zeros where there are none."""
    scores: Tensor
    """(B, T)"""
    numbers: Tensor
    """(3, B) int32: how many of the T are candidates; how many there would be with room for all; and 1 where a placed
    box is empty."""
    memory: Tensor
    """(bytes,) uint8: what all of these lie in, for a single copy."""

    @classmethod
    def within(cls, memory: Tensor, images: int, most: int) -> Best:
        """What lies in some memory."""
        boxes, placed, labels, scores, numbers = memory.split(_lengths(images, most))
        return cls(
            boxes.view(torch.float32).view(images, most, 4),
            placed.view(torch.float32).view(images, most, 4),
            labels.view(torch.int64).view(images, most),
            scores.view(torch.float32).view(images, most),
            numbers.view(torch.int32).view(3, images),
            memory,
        )

    @classmethod
    def none(cls, images: int, most: int, device: torch.device) -> Best:
        """No candidates: zeros."""
        return cls.within(torch.zeros(sum(_lengths(images, most)), dtype=torch.uint8, device=device), images, most)

    @property
    def count(self) -> Tensor:
        """(B,) int32: how many of the T are candidates."""
        return self.numbers[0]


def _lengths(images: int, most: int) -> list[int]:
    """Bytes of each part, in the order of `Best`. Those of 8 bytes a value begin at multiples of 8."""
    return [16 * images * most, 16 * images * most, 8 * images * most, 4 * images * most, 12 * images]


@triton.jit
def _rank(
    scores, wanted, boxes, labels, limits, scales, output_limits, best_boxes, best_placed, best_labels, best_scores,
    numbers, candidates, classes, most, HAS_CLASSES: tl.constexpr, HAS_BOX_PER_CLASS: tl.constexpr,
    RANKED: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Some candidates of an image: those that are wanted and among its best, to their places."""
    image, images = tl.program_id(1).to(tl.int64), tl.num_programs(1)
    own = tl.program_id(0) * RANKED + tl.arange(0, RANKED)
    base = image * candidates
    is_wanted = tl.load(wanted + base + own, mask=own < candidates, other=0) != 0
    # The first program counts as well.
    if (tl.program_id(0) > 0) & (tl.sum(is_wanted.to(tl.int32), axis=0) == 0):
        return
    score = tl.load(scores + base + own, mask=own < candidates, other=0.0)
    before, some = tl.zeros((RANKED, CHUNK), tl.int32), tl.zeros((CHUNK,), tl.int32)
    for start in range(0, candidates, CHUNK):
        place = start + tl.arange(0, CHUNK)
        others = tl.load(scores + base + place, mask=place < candidates, other=0.0)
        others_wanted = tl.load(wanted + base + place, mask=place < candidates, other=0) != 0
        # Of equal scores the earlier comes first.
        first = others[None, :] > score[:, None]
        first |= (others[None, :] == score[:, None]) & (place[None, :] < own[:, None])
        before += (first & others_wanted[None, :]).to(tl.int32)
        some += others_wanted.to(tl.int32)
    if tl.program_id(0) == 0:
        number = tl.sum(some, axis=0)
        tl.store(numbers + image, tl.minimum(number, most))
        tl.store(numbers + images + image, number)
    rank = tl.sum(before, axis=1)
    has_place = is_wanted & (rank < most)
    to = image * most + rank
    tl.store(best_scores + to, score, mask=has_place)
    box = base + own
    if HAS_CLASSES:
        tl.store(best_labels + to, (own % classes).to(tl.int64), mask=has_place)
        if not HAS_BOX_PER_CLASS:
            box = image * (candidates // classes) + own // classes
    elif labels is not None:
        tl.store(best_labels + to, tl.load(labels + base + own, mask=has_place, other=0), mask=has_place)
    side, seen = tl.arange(0, 4)[None, :], has_place[:, None]
    value = tl.load(boxes + box[:, None] * 4 + side, mask=seen, other=0.0)
    if limits is not None:
        value = tl.minimum(tl.maximum(value, 0.0), tl.load(limits + image * 4 + side))
    tl.store(best_boxes + to[:, None] * 4 + side, value, mask=seen)
    if scales is not None:
        value = value * tl.load(scales + image * 4 + side)
        value = tl.minimum(tl.maximum(value, 0.0), tl.load(output_limits + image * 4 + side))
        tl.store(best_placed + to[:, None] * 4 + side, value, mask=seen)
        width = tl.sum(tl.where(side == 2, value, 0.0) - tl.where(side == 0, value, 0.0), axis=1)
        height = tl.sum(tl.where(side == 3, value, 0.0) - tl.where(side == 1, value, 0.0), axis=1)
        if tl.sum((has_place & ((width <= 0) | (height <= 0))).to(tl.int32), axis=0) > 0:
            tl.store(numbers + 2 * images + image, 1)


def best(
    scores: Tensor, wanted: Tensor, boxes: Tensor, most: int, *, labels: Tensor | None = None,
    classes: int | None = None, clip: ImageSizes | None = None, place: ImageSizes | None = None,
) -> Best:  # fmt: skip
    """The wanted candidates with the highest scores; of equal scores the earlier comes first.

    Args:
        scores: (B, M) float32.
        wanted: (B, M) bool.
        boxes: (B, M, 4) float32; with classes, also (B, M / classes, 4).
        labels: (B, M) int64. With classes, they are the remainders of the places in M.
        clip: cut the boxes at the borders of these images.
        place: also give them in pixels of these images before resizing.
    """
    images, candidates = scores.shape
    result = Best.none(images, most, scores.device)
    if not candidates or not most:
        return result
    has_box_per_class = boxes.shape[1] == candidates
    if images * candidates**2 > MOST_PAIRS and most < candidates:
        order = scores.masked_fill(~wanted, -torch.inf).sort(dim=1, descending=True, stable=True).indices[:, :most]
        box = order if has_box_per_class else order // classes
        some = best(
            scores.gather(1, order), wanted.gather(1, order), boxes.gather(1, box[:, :, None].expand(-1, -1, 4)), most,
            labels=order % classes if classes else None if labels is None else labels.gather(1, order), clip=clip,
            place=place,
        )  # fmt: skip
        some.numbers[1].copy_(wanted.sum(1))
        return some
    _rank[(triton.cdiv(candidates, RANKED), images)](
        scores.contiguous(), wanted.contiguous().view(torch.int8), boxes.contiguous(),
        None if labels is None else labels.contiguous(), clip and clip.limits, place and place.scales,
        place and place.output_limits, result.boxes, result.placed, result.labels, result.scores, result.numbers,
        candidates, classes or 1, most, HAS_CLASSES=classes is not None, HAS_BOX_PER_CLASS=has_box_per_class,
        RANKED=RANKED, CHUNK=CHUNK,
    )  # fmt: skip
    return result
