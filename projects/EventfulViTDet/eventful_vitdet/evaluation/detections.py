"""From a model's output to arrays in memory of the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from detectron2.structures import Instances

from .errors import EvaluationError
from .tables import DetectionTable


@dataclass(frozen=True)
class Detections:
    """
    One frame's detections in memory of the CPU: boxes (N, 4) as x0, y0, x1, y1 in pixels, scores and classes
    (N,).
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    @classmethod
    def from_instances(cls, instances: Instances, model_input: Mapping) -> Detections:
        """Copy a model's output; raise EvaluationError, naming the frame, if it holds NaN or infinity."""
        boxes = instances.pred_boxes.tensor.detach().float().cpu().numpy()
        scores = instances.scores.detach().float().cpu().numpy()
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise EvaluationError(
                f"the model gave boxes or scores that are not finite for frame {model_input.get('frame_id')} "
                f"of video {model_input.get('video_id')} ({model_input.get('file_name', 'unknown file')})"
            )
        return cls(boxes, scores, instances.pred_classes.cpu().numpy().astype(np.int32))

    def check_classes(self, num_classes: int, dataset_name: str) -> None:
        """Raise EvaluationError if the model predicts a class that the data set does not have."""
        if self.classes.size and self.classes.max() >= num_classes:
            raise EvaluationError(
                f"the model predicts class {self.classes.max()}, but data set '{dataset_name}' has {num_classes} "
                "classes; set MODEL.ROI_HEADS.NUM_CLASSES and use weights trained for it"
            )

    def to_table(self, image_id: int) -> DetectionTable:
        """The same as rows of a table."""
        image_ids = np.full(len(self.scores), image_id, np.int64)
        return DetectionTable(image_ids, self.classes, self.scores, self.boxes.reshape(-1, 4))
