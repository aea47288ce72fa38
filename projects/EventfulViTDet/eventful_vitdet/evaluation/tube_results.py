"""From the records of finished videos to tubes: linked, written, and compared with the annotated ones."""

from __future__ import annotations

import os

from ..data.coco_vid import group_by_video
from .coco_metrics import BOXES, MASKS
from .collect import Collected, compares_masks
from .formats import TUBES_FILE, write_tubes
from .targets import VideoTestSet
from .tube_metrics import TubeMetrics, compute_tube_metrics, undefined_tube_metrics
from .tubes import annotated_tubes, linked_tubes

TUBE_GROUPS = {BOXES: "tube_bbox", MASKS: "tube_segm"}
"""Their names in results.json."""


def measure_tubes(test_set: VideoTestSet, folder: str, collected: Collected, limits: dict) -> dict[str, TubeMetrics]:
    """Link the detections to tubes and write these; returns their metrics by group: of boxes and, where masks are
    compared, of masks. For a data set without annotations, all are None.

    Raises MissingPackageError without the tracker.
    """
    videos = group_by_video(collected.frames)
    found = linked_tubes(videos, collected.detections, **limits)
    write_tubes(os.path.join(folder, TUBES_FILE), found, videos, test_set.category_ids)
    if not test_set.is_annotated:
        return {TUBE_GROUPS[BOXES]: undefined_tube_metrics(test_set.classes)}
    return {
        TUBE_GROUPS[kind]: compute_tube_metrics(annotated_tubes(videos, kind), found, test_set.classes, kind)
        for kind in (BOXES, MASKS)
        if kind == BOXES or compares_masks(test_set, collected)
    }
