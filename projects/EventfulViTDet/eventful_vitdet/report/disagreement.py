"""Where the eventful detector and the dense one see different things, without asking which of them is right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..evaluation.detection_table import DetectionTable
from ..evaluation.matching import box_ious

STRONG = 0.5
"""Detections of at least this score are looked for in the other's."""
WEAK = 0.25
"""They count as found where the other has them with at least this score: 0.51 against 0.49 is no disagreement."""
MIN_IOU = 0.5


@dataclass(frozen=True)
class FrameDifference:
    """Two sets of detections of a frame. Masks mark the rows of strong detections without a counterpart."""

    image_id: int
    dense: DetectionTable
    eventful: DetectionTable
    only_dense: np.ndarray
    only_eventful: np.ndarray

    @property
    def strong(self) -> int:
        """Strong detections of both."""
        return int((self.dense.scores >= STRONG).sum() + (self.eventful.scores >= STRONG).sum())

    @property
    def shared(self) -> int:
        """Those of them that the other has too."""
        return self.strong - int(self.only_dense.sum() + self.only_eventful.sum())

    @property
    def size(self) -> float:
        """Summed scores of what only one of the two has."""
        return float(self.dense.scores[self.only_dense].sum() + self.eventful.scores[self.only_eventful].sum())


def compare_frames(image_ids: np.ndarray, dense: DetectionTable, eventful: DetectionTable) -> Iterator[FrameDifference]:
    """Compare the detections of two runs frame by frame, in the order of `image_ids` (F,)."""
    left, right = _split(image_ids, dense), _split(image_ids, eventful)
    for image_id, ours, theirs in zip(image_ids, left, right):
        yield FrameDifference(int(image_id), ours, theirs, _without(ours, theirs), _without(theirs, ours))


def _split(image_ids: np.ndarray, table: DetectionTable) -> Iterator[DetectionTable]:
    """The detections of each frame that may matter, in the frames' order."""
    table = table.select(table.scores >= WEAK)
    table = table.select(np.argsort(table.image_ids, kind="stable"))
    starts = np.searchsorted(table.image_ids, image_ids, side="left")
    ends = np.searchsorted(table.image_ids, image_ids, side="right")
    for start, end in zip(starts, ends):
        yield table.select(np.arange(start, end))


def _without(table: DetectionTable, other: DetectionTable) -> np.ndarray:
    """Mask over `table`: strong, and without a counterpart of the same class in `other`."""
    if not len(table) or not len(other):
        return table.scores >= STRONG
    same = table.classes[:, None] == other.classes[None]
    found = (same & (box_iou(table.boxes, other.boxes) >= MIN_IOU)).any(axis=1)
    return (table.scores >= STRONG) & ~found


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of all boxes (N, 4) with all boxes (M, 4), as x0, y0, x1, y1: (N, M)."""
    every, other = np.repeat(first, len(second), axis=0), np.tile(second, (len(first), 1))
    return box_ious(every, other, pixel=0).reshape(len(first), len(second))
