"""From the records of finished videos to tubes: linked, written, and compared with the annotated ones."""

from __future__ import annotations

import os

from detectron2.config import CfgNode

from ..data.coco_vid import group_by_video
from ..errors import ConfigError
from ..identities import check_tracking
from .coco_metrics import BOXES, MASKS
from .collect import Collected, compares_masks
from .formats import TUBES_FILE, write_tubes
from .targets import VideoTestSet
from .tube_metrics import TubeMetrics, compute_tube_metrics, undefined_tube_metrics
from .tubes import annotated_tubes, linked_tubes

TUBE_GROUPS = {BOXES: "tube_bbox", MASKS: "tube_segm"}
"""Their names in results.json."""


def check_tubes(cfg: CfgNode) -> None:
    """Raise ConfigError for TEST.TUBE_MIN_SCORE out of range, MissingPackageError where TEST.TUBE_AP lacks its
    tracker."""
    if not 0 <= cfg.TEST.TUBE_MIN_SCORE <= 1:
        raise ConfigError(f"TEST.TUBE_MIN_SCORE must be from 0 to 1, found {cfg.TEST.TUBE_MIN_SCORE}")
    if cfg.TEST.TUBE_AP:
        check_tracking()


def measure_tubes(
    test_set: VideoTestSet, folder: str, collected: Collected, limits: dict, min_score: float
) -> dict[str, TubeMetrics]:
    """Link the detections to tubes and write these; returns their metrics by group: of boxes and, where masks are
    compared, of masks. For a data set without annotations, all are None.

    `limits` says which detections are linked, `min_score` which of them begin a track.
    Raises MissingPackageError without the tracker.
    """
    videos = group_by_video(collected.frames)
    found = linked_tubes(videos, collected.detections, min_score, **limits)
    write_tubes(os.path.join(folder, TUBES_FILE), found, videos, test_set.category_ids)
    if not test_set.is_annotated:
        return {TUBE_GROUPS[BOXES]: undefined_tube_metrics(test_set.classes)}
    return {
        TUBE_GROUPS[kind]: compute_tube_metrics(annotated_tubes(videos, kind), found, test_set.classes, kind)
        for kind in (BOXES, MASKS)
        if kind == BOXES or compares_masks(test_set, collected)
    }
