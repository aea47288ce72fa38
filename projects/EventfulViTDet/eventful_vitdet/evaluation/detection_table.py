"""Detections of many frames as columns of arrays: a few dozen bytes each, whatever their number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import numpy as np

from ..errors import EvaluationError
from ..structures import Detections


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
    def of_frame(cls, image_id: int, found: Detections) -> DetectionTable:
        """The detections of one frame."""
        image_ids = np.full(len(found.scores), image_id, np.int64)
        return cls(image_ids, found.classes, found.scores, found.boxes.reshape(-1, 4))

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


def tabulate_output(model_input: Mapping, output: Mapping, num_classes: int, dataset_name: str) -> DetectionTable:
    """What a model found in one frame ("image_id") of a data set.

    Raises DetectionError for detections that are not finite, EvaluationError for a class that the data set does not
    have; both name what is wrong.
    """
    found = Detections.from_instances(output["instances"], model_input)
    if found.classes.size and found.classes.max() >= num_classes:
        raise EvaluationError(
            f"the model predicts class {found.classes.max()}, but data set '{dataset_name}' has {num_classes} "
            "classes; set MODEL.ROI_HEADS.NUM_CLASSES and use weights trained for it"
        )
    return DetectionTable.of_frame(model_input["image_id"], found)
