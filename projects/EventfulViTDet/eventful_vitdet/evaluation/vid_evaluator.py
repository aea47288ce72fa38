"""The evaluator for loops of one's own, such as Detectron2's `inference_on_dataset`."""

from __future__ import annotations

import logging
import os

from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..data.registration import load_frames
from ..errors import EvaluationError
from .coco_metrics import keep_best
from .detection_table import DetectionTable, tabulate_output
from .formats import DETECTIONS_FILE, write_coco_detections
from .metrics import compute_metrics
from .targets import VideoTestSet, check_annotated

JOIN_AT = 1000
"""Frames whose tables are joined at a time: many small arrays take more memory than one."""

logger = logging.getLogger(__name__)


class VIDEvaluator(DatasetEvaluator):
    """
    The metrics of a registered video data set; `evaluate` returns {group: {metric: percent or None}}.

    Only frames that were processed count, in the ground truth too. With several processes each contributes
    its frames, and the first one has the result. `tools/train_net.py` does without it: see `evaluate_once`.
    """

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | None = None,
        frames: list[dict] | None = None,
        *,
        score_threshold: float = 0.0,
        max_detections: int = 100,
    ) -> None:
        """Prepare for one data set.

        Args:
            dataset_name: name in DatasetCatalog.
            output_dir: folder for the detections as a COCO results file; None writes none.
            frames: the data set's dicts, to save loading them again.
            score_threshold: COCO's figures are made from detections with at least this score ...
            max_detections: ... and the best so many of each frame.

        Raises EvaluationError if the data set has no annotations at all.
        """
        self.output_dir = output_dir
        self.limits = {"score_threshold": score_threshold, "max_detections": max_detections}
        frames = load_frames(dataset_name)[0] if frames is None else frames
        check_annotated(dataset_name, frames)
        self._test_set = VideoTestSet(dataset_name, frames, frames, [])
        self._image_ids = {frame["image_id"] for frame in frames}
        self.reset()

    def reset(self) -> None:
        """Forget all detections."""
        self._processed: set[int] = set()
        self._joined: list[DetectionTable] = []
        self._recent: list[DetectionTable] = []

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Take in a batch: inputs with "image_id", outputs with "instances"."""
        for model_input, output in zip(inputs, outputs):
            image_id = model_input["image_id"]
            if image_id not in self._image_ids:
                raise EvaluationError(f"image {image_id} does not belong to data set '{self._test_set.name}'")
            table = tabulate_output(model_input, output, len(self._test_set.classes), self._test_set.name)
            self._processed.add(image_id)
            self._recent.append(table)
        if len(self._recent) >= JOIN_AT:
            self._joined.append(DetectionTable.join(self._recent))
            self._recent = []

    def evaluate(self) -> dict | None:
        """Write the detections and return the metrics; None in all processes but the first."""
        gathered = comm.gather((self._processed, DetectionTable.join(self._joined + self._recent)), dst=0)
        if not comm.is_main_process():
            return None
        processed = set().union(*(part for part, _ in gathered))
        detections = DetectionTable.join(table for _, table in gathered)
        test_set = self._test_set
        if self.output_dir is not None:
            chosen = keep_best(detections, **self.limits)
            write_coco_detections(os.path.join(self.output_dir, DETECTIONS_FILE), chosen, test_set.category_ids)
        evaluated = [frame for frame in test_set.frames if frame["image_id"] in processed]
        logger.debug("%s: %d detections in %d frames", test_set.name, len(detections), len(evaluated))
        masks = test_set.has_masks and detections.masks is not None
        return compute_metrics(
            evaluated, test_set.classes, test_set.category_ids, detections, masks=masks, **self.limits
        )
