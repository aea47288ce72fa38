"""Collecting the detections of a video data set, and evaluating them."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import Instances
from detectron2.utils import comm

from ..data.files import write_atomically
from .coco_metrics import compute_coco_metrics, make_ground_truth
from .errors import EvaluationError

DETECTIONS_FILE = "coco_instances_results.json"

logger = logging.getLogger(__name__)


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
    def from_instances(cls, instances: Instances, model_input: dict) -> Detections:
        """Copy a model's output; raise EvaluationError, naming the frame, if it holds NaN or infinity."""
        boxes = instances.pred_boxes.tensor.detach().float().cpu().numpy()
        scores = instances.scores.detach().float().cpu().numpy()
        if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
            raise EvaluationError(
                f"the model gave boxes or scores that are not finite for frame {model_input.get('frame_id')} "
                f"of video {model_input.get('video_id')} ({model_input.get('file_name', 'unknown file')})"
            )
        return cls(boxes, scores, instances.pred_classes.cpu().numpy().astype(np.int32))

    def to_coco(self, image_id: int, category_ids: list[int]) -> list[dict]:
        """COCO results of this frame."""
        sides = np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1)
        return [
            {"image_id": image_id, "category_id": category_ids[c], "bbox": box, "score": score}
            for box, score, c in zip(sides.tolist(), self.scores.tolist(), self.classes.tolist())
        ]


def check_annotated(dataset_name: str, frames: list[dict]) -> None:
    """Raise EvaluationError unless a frame has an annotation that counts, one that is no crowd."""
    if all(annotation.get("iscrowd", 0) for frame in frames for annotation in frame["annotations"]):
        raise EvaluationError(
            f"data set '{dataset_name}' has no annotations (other than crowds): there is nothing to evaluate against"
        )


class VIDEvaluator(DatasetEvaluator):
    """
    Average precision on a registered video data set; `evaluate` returns {"bbox": {metric: percent or None}}.

    Only frames that were processed count, in the ground truth too. With several processes each contributes
    its frames, and the first one has the result.
    """

    def __init__(self, dataset_name: str, output_dir: str | None = None, frames: list[dict] | None = None) -> None:
        """Prepare for one data set.

        Args:
            dataset_name: name in DatasetCatalog.
            output_dir: folder for the detections as a COCO results file; None writes none.
            frames: the data set's dicts, to save loading them again.

        Raises EvaluationError if the data set has no annotations at all.
        """
        self.dataset_name = dataset_name
        self.output_dir = output_dir
        frames = DatasetCatalog.get(dataset_name) if frames is None else frames
        self._frames = {frame["image_id"]: frame for frame in frames}
        check_annotated(dataset_name, frames)
        metadata = MetadataCatalog.get(dataset_name)
        self._classes = list(metadata.thing_classes)
        contiguous = metadata.thing_dataset_id_to_contiguous_id
        self._category_ids = sorted(contiguous, key=contiguous.__getitem__)
        self._detections: dict[int, Detections] = {}

    def reset(self) -> None:
        """Forget all detections."""
        self._detections = {}

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Take in a batch: inputs with "image_id", outputs with "instances"."""
        for model_input, output in zip(inputs, outputs):
            image_id = model_input["image_id"]
            if image_id not in self._frames:
                raise EvaluationError(f"image {image_id} does not belong to data set '{self.dataset_name}'")
            detections = Detections.from_instances(output["instances"], model_input)
            if detections.classes.size and detections.classes.max() >= len(self._classes):
                raise EvaluationError(
                    f"the model predicts class {detections.classes.max()}, but data set "
                    f"'{self.dataset_name}' has {len(self._classes)} classes; set "
                    "MODEL.ROI_HEADS.NUM_CLASSES and use weights trained for it"
                )
            self._detections[image_id] = detections

    def evaluate(self) -> dict | None:
        """Write the detections and return the metrics; None in all processes but the first."""
        gathered = comm.gather(self._detections, dst=0)
        if not comm.is_main_process():
            return None
        detections = {image_id: found for part in gathered for image_id, found in part.items()}
        results = [r for i, found in sorted(detections.items()) for r in found.to_coco(i, self._category_ids)]
        if self.output_dir is not None:
            write_atomically(os.path.join(self.output_dir, DETECTIONS_FILE), json.dumps(results, allow_nan=False))
        evaluated = [frame for image_id, frame in self._frames.items() if image_id in detections]
        logger.info("%s: %d detections in %d frames", self.dataset_name, len(results), len(evaluated))
        ground_truth = make_ground_truth(evaluated, self._category_ids, self._classes)
        return {"bbox": compute_coco_metrics(ground_truth, results)}
