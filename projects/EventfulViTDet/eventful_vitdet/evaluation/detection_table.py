"""Detections of many frames as columns of arrays: a few dozen bytes each, whatever their number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import numpy as np
from detectron2.structures import Instances

from ..errors import EvaluationError
from ..masks import encode_mask, paste_mask
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
    masks: np.ndarray | None = None
    """(M,) RunLengths of the original frame, None for detections without a mask; None where no detection has one."""

    @classmethod
    def empty(cls) -> DetectionTable:
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros((0, 4), np.float32))

    @classmethod
    def of_frame(cls, image_id: int, found: Detections, masks: np.ndarray | None = None) -> DetectionTable:
        """The detections of one frame."""
        image_ids = np.full(len(found.scores), image_id, np.int64)
        return cls(image_ids, found.classes, found.scores, found.boxes.reshape(-1, 4), masks)

    @classmethod
    def join(cls, tables: Iterable[DetectionTable]) -> DetectionTable:
        """All rows of several tables, one table after the other."""
        parts = list(tables) or [cls.empty()]
        with_masks = any(part.masks is not None for part in parts)
        columns = [np.concatenate([getattr(part, name) for part in parts]) for name in cls.numbers()]
        return cls(*columns, np.concatenate([part.mask_column() for part in parts]) if with_masks else None)

    @classmethod
    def numbers(cls) -> list[str]:
        """The columns of numbers, in their order."""
        return [column.name for column in fields(cls) if column.name != "masks"]

    def mask_column(self) -> np.ndarray:
        """`masks`, also where no detection has one."""
        return np.full(len(self), None, object) if self.masks is None else self.masks

    def select(self, rows: np.ndarray) -> DetectionTable:
        """The rows of a boolean mask or an index, in its order."""
        columns = [getattr(self, name)[rows] for name in self.numbers()]
        return DetectionTable(*columns, None if self.masks is None else self.masks[rows])

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
    masks = _encode_masks(found, output["instances"], model_input["height"], model_input["width"])
    return DetectionTable.of_frame(model_input["image_id"], found, masks)


def _encode_masks(found: Detections, instances: Instances, height: int, width: int) -> np.ndarray | None:
    """The masks of a frame's detections as run lengths: those left in their boxes, or those of Detectron2."""
    if found.masks is not None:
        pairs = zip(found.masks, found.boxes)
        covered = (None if np.isnan(mask).any() else paste_mask(mask, box, height, width) for mask, box in pairs)
    elif instances.has("pred_masks"):
        covered = (mask.cpu().numpy() for mask in instances.pred_masks)
    else:
        return None
    column = np.full(len(found.scores), None, object)
    for row, pixels in enumerate(covered):
        column[row] = None if pixels is None else encode_mask(pixels)
    return column
