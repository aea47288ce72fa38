"""From deltas to boxes on a GPU: gathered, sorted, decoded, clipped and checked in one kernel, in place of forty."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 16
"""Candidates of a program."""
CHUNK = 128
"""Candidates that it compares them with at a time."""


@triton.jit
def decoded(shift, growth, inside, first, last, shift_weight, growth_weight, most_growth):
    """A box's coordinates along an axis from deltas relative to those of another one."""
    size = last - first
    center = tl.load(shift, mask=inside, other=0.0).to(tl.float32) / shift_weight * size + (first + 0.5 * size)
    growth = tl.load(growth, mask=inside, other=0.0).to(tl.float32) / growth_weight
    # A comparison, as a minimum would lose NaN.
    half_size = 0.5 * (tl.exp(tl.where(growth > most_growth, most_growth, growth)) * size)
    return center - half_size, center + half_size


@triton.jit
def is_finite(value):
    """For compute capabilities 10 and 12, Triton 3.8's compiler aborts at a comparison of |value| with infinity."""
    return value - value == 0.0


@triton.jit
def _decode(
    deltas, anchors, places, scores, firsts, limits, boxes, sorted_scores, allowed, best, groups, all_anchors,
    weight_x, weight_y, weight_w, weight_h, most_growth, least_side, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Some candidates of a group of an image."""
    group, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    base = (image * groups + group) * best
    number = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = number < best
    score = tl.load(scores + base + number, mask=inside, other=0.0)
    height_of_own = tl.where(score == score, score, float("inf"))  # NaN counts as largest
    before = tl.zeros((BLOCK, CHUNK), tl.int32)
    for start in range(0, best, CHUNK):
        other = start + tl.arange(0, CHUNK)
        others_score = tl.load(scores + base + other, mask=other < best, other=-float("inf"))
        height = tl.where(others_score == others_score, others_score, float("inf"))
        first = height[None, :] > height_of_own[:, None]
        first |= (height[None, :] == height_of_own[:, None]) & (other[None, :] < number[:, None])
        before += (first & (other < best)[None, :]).to(tl.int32)
    candidate = base + tl.sum(before, axis=1)
    place = tl.load(places + base + number, mask=inside, other=0) + tl.load(firsts + group)
    place = tl.minimum(place, all_anchors - 1)  # of those that fill a group up
    delta, anchor = deltas + (image * all_anchors + place) * 4, anchors + place * 4
    left, top = tl.load(anchor, mask=inside, other=0.0), tl.load(anchor + 1, mask=inside, other=0.0)
    right = tl.load(anchor + 2, mask=inside, other=0.0)
    bottom = tl.load(anchor + 3, mask=inside, other=0.0)
    left, right = decoded(delta, delta + 2, inside, left, right, weight_x, weight_w, most_growth)
    top, bottom = decoded(delta + 1, delta + 3, inside, top, bottom, weight_y, weight_h, most_growth)
    finite = is_finite(score) & is_finite(left) & is_finite(right) & is_finite(top) & is_finite(bottom)
    most_x, most_y = tl.load(limits + image * 4), tl.load(limits + image * 4 + 1)
    left, right = _within(left, most_x), _within(right, most_x)
    top, bottom = _within(top, most_y), _within(bottom, most_y)
    box = boxes + candidate * 4
    tl.store(box, left, mask=inside)
    tl.store(box + 1, top, mask=inside)
    tl.store(box + 2, right, mask=inside)
    tl.store(box + 3, bottom, mask=inside)
    tl.store(sorted_scores + candidate, score, mask=inside)
    is_allowed = finite & (right - left > least_side) & (bottom - top > least_side)
    tl.store(allowed + candidate, is_allowed.to(tl.int8), mask=inside)


@triton.jit
def _within(coordinate, most):
    return tl.minimum(tl.maximum(coordinate, 0.0), most)


def decode(
    deltas: Tensor, anchors: Tensor, places: Tensor, scores: Tensor, firsts: Tensor, limits: Tensor,
    weights: tuple[float, ...], most_growth: float, least_side: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The boxes of some anchors within their images, in the order of their scores, and which may be proposals.

    Args:
        deltas: (B, R, 4) of all anchors (R, 4).
        places: (B, groups, M), which anchors of a group, and their scores (B, groups, M), in any order.
        firsts: (groups,), the first anchor of each group. Places beyond the last anchor stand for it.
        limits: (B, 1, 4), width, height, width and height of the images.
        weights, most_growth: as Detectron2's Box2BoxTransform has them.
        least_side: sides in pixels are above this.

    Returns:
        Boxes (B, groups * M, 4), the best first in each group, of equal ones the earlier; their scores (B, groups * M);
        and whether they are finite, with a finite score, and large enough, (B, groups * M) bool.
    """
    images, groups, best = places.shape
    boxes = torch.empty(images, groups * best, 4, dtype=torch.float32, device=deltas.device)
    sorted_scores = torch.empty(images, groups * best, dtype=torch.float32, device=deltas.device)
    allowed = torch.empty(images, groups * best, dtype=torch.bool, device=deltas.device)
    _decode[(triton.cdiv(best, BLOCK), groups, images)](
        deltas, anchors, places.contiguous(), scores.contiguous(), firsts, limits.contiguous(), boxes, sorted_scores,
        allowed.view(torch.int8), best, groups, len(anchors), *map(float, weights), float(most_growth),
        float(least_side), BLOCK=BLOCK, CHUNK=CHUNK,
    )  # fmt: skip
    return boxes, sorted_scores, allowed
