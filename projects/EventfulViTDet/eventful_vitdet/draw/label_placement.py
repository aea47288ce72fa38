"""Where labels stand, so that they hide neither each other nor what they are about.

All boxes are (x0, y0, x1, y1), y downwards, in any unit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Box = tuple[float, float, float, float]

LABEL_WEIGHT, OUTSIDE_WEIGHT = 12.0, 60.0
"""How much worse it is to cover another label, or to lie outside, than to cover a part of a picture or line."""


def place_label(
    size: tuple[float, float],
    corners: Sequence[tuple[float, float]],
    bounds: Box,
    labels: list[Box],
    soft: Sequence[Box],
) -> int:
    """Choose where a label stands: the first of the corners where it covers least. That place joins `labels`.

    Args:
        size: width and height of the label.
        corners: upper left corners to choose from, the most wanted first.
        bounds: what labels have to lie in.
        labels: boxes that should not be covered at all.
        soft: boxes that are better left free, that of the label itself among them.

    Returns the index of a corner.
    """
    starts = np.array(corners, np.float64)
    boxes = np.concatenate([starts, starts + size], axis=1)
    outside = size[0] * size[1] - overlaps(boxes, [bounds])
    costs = LABEL_WEIGHT * overlaps(boxes, labels) + OUTSIDE_WEIGHT * outside + overlaps(boxes, soft)
    best = int(np.argmin(np.round(costs / (size[0] * size[1]), 6)))
    labels.append(tuple(boxes[best].tolist()))
    return best


def corners_around(box: Box, size: tuple[float, float], bounds: Box) -> list[tuple[float, float]]:
    """Upper left corners of a label at the part of a box inside of `bounds`: above, below, beside, inside and farther
    away, shifted into `bounds`."""
    x0, y0, x1, y1 = (_into(side, 0, bounds[i % 2], bounds[i % 2 + 2]) for i, side in enumerate(box))
    width, height = size
    spots = (
        *((x0, y0 - height), (x1 - width, y0 - height), (x0, y1), (x1 - width, y1)),
        *((x1, y0), (x0 - width, y0), (x1, y1 - height), (x0 - width, y1 - height)),
        *((x0, y0), (x1 - width, y1 - height)),
        *((x0, y0 - 2 * height), (x0, y1 + height)),
    )
    return [(_into(x, width, bounds[0], bounds[2]), _into(y, height, bounds[1], bounds[3])) for x, y in spots]


def overlaps(boxes: np.ndarray, others: Sequence[Box]) -> np.ndarray:
    """The area that each of some boxes (N, 4) shares with others, in all: (N,)."""
    if not others:
        return np.zeros(len(boxes))
    first, second = boxes[:, None], np.array(others, np.float64)[None]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2])
    return np.prod(np.maximum(sides, 0.0), axis=2).sum(axis=1)


def _into(start: float, length: float, low: float, high: float) -> float:
    return max(low, min(start, high - length))
