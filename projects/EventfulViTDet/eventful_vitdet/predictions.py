"""What `EventfulPredictor` gives for a frame, and its forms for other libraries."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from .errors import MissingPackageError
from .masks import paste_mask
from .structures import FrameCost

if TYPE_CHECKING:
    from supervision import Detections as SupervisionDetections


@dataclass(frozen=True, eq=False)
class Prediction:
    """The N detections of a frame, the best first, and what it cost. `len(prediction)` is N."""

    number: int
    """Of the frame: in its file, or since the last reset, from 0."""
    seconds: float | None
    """When its file shows it; None for a frame that was handed in without."""
    image: np.ndarray = field(repr=False)
    """The frame, (H, W, 3) uint8, RGB; no copy where it was handed in."""
    boxes: np.ndarray
    """(N, 4) float32: x0, y0, x1, y1 in pixels of the frame."""
    scores: np.ndarray
    """(N,) float32, from 0 to 1."""
    classes: np.ndarray
    """(N,) int32: numbers of the model's classes, from 0."""
    class_names: list[str]
    """N names."""
    cost: FrameCost
    """Operations and seconds of the frame, and whether it was computed in full."""
    budget: str
    """What chose the tokens, such as "top-r 128"; "dense" for the dense model."""
    box_masks: np.ndarray | None = field(default=None, repr=False)
    """(N, M, M) float32: probabilities that fill the boxes; None where no masks were computed."""

    def __len__(self) -> int:
        return len(self.scores)

    @cached_property
    def masks(self) -> np.ndarray | None:
        """The pixels of the frame that each object covers, (N, H, W) bool; None where no masks were computed. Made when
        they are first used."""
        if self.box_masks is None:
            return None
        covered = np.zeros((len(self), *self.image.shape[:2]), bool)
        for pixels, mask, box in zip(covered, self.box_masks, self.boxes):
            pixels[:] = paste_mask(mask, box, *pixels.shape)
        return covered

    def to_instances(self) -> Instances:
        """Detectron2's form: pred_boxes, scores, pred_classes and, with masks, pred_masks (N, H, W)."""
        found = Instances(self.image.shape[:2])
        found.pred_boxes = Boxes(torch.from_numpy(self.boxes))
        found.scores = torch.from_numpy(self.scores)
        found.pred_classes = torch.from_numpy(self.classes).long()
        if self.masks is not None:
            found.pred_masks = torch.from_numpy(self.masks)
        return found

    def to_supervision(self) -> SupervisionDetections:
        """The form of the library `supervision`, for its annotators, trackers and zones.

        Raises:
            MissingPackageError: it is not installed.
        """
        try:
            from supervision import Detections
        except ImportError as error:
            raise MissingPackageError("supervision is not installed: pip install supervision") from error
        return Detections(
            xyxy=self.boxes,
            confidence=self.scores,
            class_id=self.classes.astype(int),
            mask=self.masks,
            data={"class_name": np.array(self.class_names, dtype=str)},
        )
