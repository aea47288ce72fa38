"""Detections of many frames as columns of arrays: a few dozen bytes each, whatever their number."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class DetectionTable:
    """M detections, in no particular order of frames. Columns are aligned."""

    image_ids: np.ndarray
    """(M,) int64: `image_id` of the frame."""
    classes: np.ndarray
    """(M,) int32: contiguous class, from 0."""
    scores: np.ndarray
    """(M,) float32."""
    boxes: np.ndarray
    """(M, 4) float32: x0, y0, x1, y1 in pixels of the original frame."""

    @classmethod
    def empty(cls) -> DetectionTable:
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros((0, 4), np.float32))

    @classmethod
    def join(cls, tables: Iterable[DetectionTable]) -> DetectionTable:
        """All rows of several tables, one table after the other."""
        parts = list(tables) or [cls.empty()]
        return cls(*(np.concatenate([getattr(part, column.name) for part in parts]) for column in fields(cls)))

    def select(self, rows: np.ndarray) -> DetectionTable:
        """The rows of a boolean mask or an index, in its order."""
        return DetectionTable(*(getattr(self, column.name)[rows] for column in fields(self)))

    def __len__(self) -> int:
        return len(self.image_ids)
