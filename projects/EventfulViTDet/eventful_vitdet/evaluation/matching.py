"""Which detection found which object: greedy, by falling score, at one IoU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .detection_table import DetectionTable
from .ground_truth import Objects

ROWS_AT_ONCE = 1 << 16  # bounds the memory of pairs, whatever the number of detections
EVERY_MARK = 0xFF


@dataclass(frozen=True)
class Matches:
    """What became of M detections."""

    partners: np.ndarray
    """(M,) int32: the object that the detection found; -1 for none."""
    marks: np.ndarray
    """(M,) uint8: the marks, joined by "or", of the objects of its class and frame that it overlaps most;
    EVERY_MARK where there is no such object, and no mark where it found none and lies in a crowd."""


def match_detections(
    objects: Objects,
    detections: DetectionTable,
    frames: np.ndarray,
    *,
    object_marks: np.ndarray,
    iou_threshold: float = 0.5,
) -> Matches:
    """Give each detection, the highest score first, the free object of its frame and class that it overlaps most.

    Equal scores in one frame are taken in ascending order of their boxes (x0, then y0, x1, y1), and so are
    objects of equal IoU. IoU is `box_ious` with pixel=1; it suffices from `iou_threshold` on. Crowds are no objects to
    find: a detection that found none lies in a crowd of its class if a share of at least `iou_threshold` of its own
    area does, as in COCO.

    Args:
        objects: the G objects.
        detections: the M detections.
        frames: (M,) position of each detection's frame.
        object_marks: (G,) uint8, for Matches.marks.
    """
    matches = Matches(np.full(len(detections), -1, np.int32), np.full(len(detections), EVERY_MARK, np.uint8))
    num_classes = 1 + max((int(c.max()) for c in (objects.classes, detections.classes) if c.size), default=0)
    object_groups = objects.frames * num_classes + objects.classes
    for rows in _whole_frames(frames):
        groups = frames[rows].astype(np.int64) * num_classes + detections.classes[rows]
        first = np.searchsorted(object_groups, groups, "left")
        count = np.searchsorted(object_groups, groups, "right") - first
        busy = np.flatnonzero(count)
        if not busy.size:
            continue
        part = detections.select(rows[busy])
        ranked = _by_score(part)
        busy, boxes = busy[ranked], part.boxes[ranked].astype(np.float64)
        partners, marks = _match(boxes, first[busy], count[busy], objects, object_marks, iou_threshold)
        matches.partners[rows[busy]], matches.marks[rows[busy]] = partners, marks
    return matches


def box_ious(first: np.ndarray, second: np.ndarray, *, pixel: float) -> np.ndarray:
    """(N,) IoU of boxes (N, 4) in pairs.

    `pixel` is added to each width and height: 1 counts the pixels from x0 to x1, both included, as
    evaluations on ImageNet VID do; 0 takes coordinates as lengths. Sides below 0 count as 0.
    """

    common = _common_areas(first, second, pixel)
    union = _areas(first, pixel) + _areas(second, pixel) - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _areas(boxes: np.ndarray, pixel: float) -> np.ndarray:
    return np.maximum(boxes[:, 2:] - boxes[:, :2] + pixel, 0).prod(axis=1)


def _common_areas(first: np.ndarray, second: np.ndarray, pixel: float) -> np.ndarray:
    low, high = np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])
    return _areas(np.concatenate([low, high], axis=1), pixel)


def _whole_frames(frames: np.ndarray) -> Iterator[np.ndarray]:
    """Rows in parts of about ROWS_AT_ONCE that never divide a frame."""
    order = np.argsort(frames, kind="stable")
    ascending = frames[order]
    start = 0
    while start < len(order):
        last = min(start + ROWS_AT_ONCE, len(order)) - 1
        end = int(np.searchsorted(ascending, ascending[last], "right"))
        yield order[start:end]
        start = end


def _by_score(detections: DetectionTable) -> np.ndarray:
    return np.lexsort((*detections.boxes.T[::-1], -detections.scores))


def _match(
    boxes: np.ndarray,
    first: np.ndarray,
    count: np.ndarray,
    objects: Objects,
    object_marks: np.ndarray,
    iou_threshold: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Partners and marks of boxes (R, 4) in order of score; each has the `count` > 0 objects from `first` on."""
    starts = np.cumsum(count) - count
    owner = np.repeat(np.arange(len(boxes)), count)
    candidate = np.arange(len(owner)) + np.repeat(first - starts, count)
    is_crowd = objects.crowds[candidate]
    ious = box_ious(boxes[owner], objects.boxes[candidate], pixel=1)
    ious[is_crowd] = -1.0  # neither found nor nearest

    most = np.maximum.reduceat(ious, starts)
    nearest = np.where(~is_crowd & (ious == most[owner]), object_marks[candidate], 0).astype(np.uint8)
    marks = np.bitwise_or.reduceat(nearest, starts)
    marks[most < 0] = EVERY_MARK
    inside = np.zeros(len(owner), bool)
    inside[is_crowd] = _common_areas(
        boxes[owner[is_crowd]], objects.boxes[candidate[is_crowd]], pixel=1
    ) >= iou_threshold * _areas(boxes[owner[is_crowd]], pixel=1)
    marks[np.logical_or.reduceat(inside, starts)] = 0

    partners = np.full(len(boxes), -1, np.int32)
    close = np.flatnonzero(ious >= iou_threshold)
    close = close[np.lexsort((-ious[close], owner[close]))]
    # One after the other, as what a detection may take depends on those before it; pairs this close are few.
    taken: set[int] = set()
    for row, target in zip(owner[close].tolist(), candidate[close].tolist()):
        if target not in taken and partners[row] < 0:
            partners[row] = target
            taken.add(target)
    return partners, marks
