"""What the last box head says about each region, as boxes and candidates for detections, in one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .anchor_decoding import decoded, is_finite


@triton.jit
def _decide(
    scores, deltas, proposals, counts, boxes, known_scores, pairs, wanted, regions, classes, delta_step, threshold,
    weight_x, weight_y, weight_w, weight_h, most_growth, HAS_BOX_PER_CLASS: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    """A region of an image."""
    image, number = tl.program_id(1).to(tl.int64), tl.program_id(0)
    region = image * regions + number
    proposal = proposals + region * 4
    left, top, right, bottom = tl.load(proposal), tl.load(proposal + 1), tl.load(proposal + 2), tl.load(proposal + 3)
    one = tl.arange(0, CLASSES)
    boxes_of_region = classes if HAS_BOX_PER_CLASS else 1
    has_box = one < boxes_of_region
    delta, box = deltas + region * delta_step + one * 4, boxes + (region * boxes_of_region + one) * 4
    left, right = decoded(delta, delta + 2, has_box, left, right, weight_x, weight_w, most_growth)
    top, bottom = decoded(delta + 1, delta + 3, has_box, top, bottom, weight_y, weight_h, most_growth)
    tl.store(box, left, mask=has_box)
    tl.store(box + 1, top, mask=has_box)
    tl.store(box + 2, right, mask=has_box)
    tl.store(box + 3, bottom, mask=has_box)
    score = tl.load(scores + region * (classes + 1) + one, mask=one <= classes, other=0.0)
    finite = is_finite(left) & is_finite(right) & is_finite(top) & is_finite(bottom)
    bad = (has_box & (finite == 0)) | (is_finite(score) == 0)
    is_known = (number < tl.load(counts + image)) & (tl.sum(bad.to(tl.int32), axis=0) == 0)
    score = tl.where(is_known, score, -1.0)
    tl.store(known_scores + region * (classes + 1) + one, score, mask=one <= classes)
    pair = region * classes + one
    tl.store(pairs + pair, score, mask=one < classes)
    is_wanted = is_known & (score > threshold) & (score >= 0.0)
    tl.store(wanted + pair, is_wanted.to(tl.int8), mask=one < classes)


def decide(
    scores: Tensor, deltas: Tensor, proposals: Tensor, count: Tensor, threshold: float, weights: tuple[float, ...],
    most_growth: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Boxes of regions, and which of their classes count.

    Args:
        scores: (B * P, K + 1) float32; the last is that of no object.
        deltas: (B * P, K * 4) or (B * P, 4); a region's lie side by side.
        proposals: (B, P, 4) float32, of which the first `count` (B,) int32 count.
        threshold: scores of detections are above this.
        weights, most_growth: as Detectron2's Box2BoxTransform has them.

    Returns:
        Boxes (B, P, K * 4) or (B, P, 4); scores (B, P, K + 1), -1 for regions that are none or not finite; the same of
        every pair of region and class, (B, P * K); and which of these may be detections, (B, P * K) bool.
    """
    images, regions, _ = proposals.shape
    classes = scores.shape[1] - 1
    boxes = torch.empty(images, regions, deltas.shape[1], dtype=torch.float32, device=scores.device)
    known_scores = torch.empty(images, regions, classes + 1, dtype=torch.float32, device=scores.device)
    pairs = torch.empty(images, regions * classes, dtype=torch.float32, device=scores.device)
    wanted = torch.empty(images, regions * classes, dtype=torch.bool, device=scores.device)
    if len(scores):
        _decide[(regions, images)](
            scores.contiguous(), deltas, proposals.contiguous(), count, boxes, known_scores, pairs,
            wanted.view(torch.int8), regions, classes, deltas.stride(0), float(threshold), *map(float, weights),
            float(most_growth), HAS_BOX_PER_CLASS=deltas.shape[1] > 4,
            CLASSES=triton.next_power_of_2(classes + 1),
        )  # fmt: skip
    return boxes, known_scores, pairs, wanted
