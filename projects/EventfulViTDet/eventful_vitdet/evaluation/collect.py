"""From the records of finished videos to all results of an evaluation."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.config import CfgNode

from ..costs import CostSums
from ..data.coco_vid import Video
from .bootstrap import percentiles
from .coco_metrics import keep_best
from .detection_table import DetectionTable
from .formats import DETECTIONS_FILE, SUBMISSION_FILE, write_coco_detections, write_vid_submission
from .machine_times import MachineTimes
from .metrics import (
    AGREEMENT,
    CHANGE,
    VID_AP50,
    Metrics,
    compute_agreement,
    compute_metrics,
    resample_vid_ap50,
    undefined_metrics,
)
from .store import read_record, record_path
from .targets import VideoTestSet
from .video_rows import make_row, write_rows

VIDEOS_FILE = "videos.csv"
ANY_NUMBER = 1 << 31

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Collected:
    """What the records of videos say together."""

    frames: list[dict]
    detections: DetectionTable
    costs: CostSums
    times: MachineTimes
    frames_since_flush: dict[int, int]
    """By image_id."""


def coco_limits(cfg: CfgNode) -> dict[str, float | int]:
    """Which of the stored detections COCO's figures are made from."""
    limit = cfg.TEST.DETECTIONS_PER_IMAGE
    return {
        "score_threshold": cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST,
        "max_detections": ANY_NUMBER if limit < 0 else limit,
    }


def finished_videos(test_set: VideoTestSet, folder: str) -> list[Video]:
    """The frames of the videos that have a record."""
    return [video for video in test_set.videos if os.path.isfile(record_path(folder, video[0]["video_id"]))]


def collect(videos: Sequence[Video], folder: str) -> Collected:
    """Join the records of finished videos. Raises EvaluationError, naming the file, if one is damaged."""
    costs, times, tables, since_flush = CostSums(), MachineTimes(), [], {}
    for video in videos:
        record = read_record(record_path(folder, video[0]["video_id"]))
        costs.add_video(record.flushed, record.macs, record.backbone_seconds, record.total_seconds)
        times.add(record)
        tables.append(record.detections)
        since_flush.update(zip(record.image_ids.tolist(), record.frames_since_flush().tolist()))
    frames = [frame for video in videos for frame in video]
    return Collected(frames, DetectionTable.join(tables), costs, times, since_flush)


def write_video_rows(test_set: VideoTestSet, folder: str, limits: dict) -> None:
    """Write videos.csv: each finished video evaluated by itself."""
    rows = []
    for video in finished_videos(test_set, folder):
        record = read_record(record_path(folder, video[0]["video_id"]))
        name = test_set.video_name(record.video_id)
        rows.append(make_row(record, name, video, test_set.classes, test_set.category_ids, **limits))
    write_rows(os.path.join(folder, VIDEOS_FILE), rows)


def write_detections(test_set: VideoTestSet, folder: str, collected: Collected, limits: dict) -> None:
    """Write the detections in the formats of COCO, those that count there, and of ImageNet VID, all of them."""
    chosen = keep_best(collected.detections, **limits)
    write_coco_detections(os.path.join(folder, DETECTIONS_FILE), chosen, test_set.category_ids)
    write_vid_submission(os.path.join(folder, SUBMISSION_FILE), collected.detections, test_set.frame_numbers)
    logger.debug(
        "%s: %d detections in %d frames, of which COCO's figures use %d",
        test_set.name,
        len(collected.detections),
        len(collected.frames),
        len(chosen),
    )


def compares_masks(test_set: VideoTestSet, collected: Collected) -> bool:
    """Whether both the annotations and the detections have masks."""
    return test_set.has_masks and collected.detections.masks is not None


def measure(test_set: VideoTestSet, collected: Collected, limits: dict) -> dict[str, dict]:
    """All metrics that need annotations, by group; None throughout for a data set without.

    Raises EvaluationError if it has some, but none in the frames that were evaluated.
    """
    if not test_set.is_annotated:
        logger.warning("%s has no annotations: only costs and agreement with the dense model are known", test_set.name)
        return undefined_metrics(test_set.classes)
    metrics = compute_metrics(
        collected.frames,
        test_set.classes,
        test_set.category_ids,
        collected.detections,
        frames_since_flush=collected.frames_since_flush,
        masks=compares_masks(test_set, collected),
        **limits,
    )
    resampled = resample_vid_ap50(collected.frames, test_set.classes, collected.detections)
    return {**metrics, "intervals": interval(VID_AP50, resampled)}


def compare_with_dense(test_set: VideoTestSet, dense_folder: str, folder: str) -> tuple[Metrics, Metrics]:
    """Compare the records below two folders, on the videos that are in both.

    Returns the group "agreement", and intervals of agreement and of the change of VID-AP50.
    """
    in_both = set.intersection(
        *({video[0]["video_id"] for video in finished_videos(test_set, place)} for place in (dense_folder, folder))
    )
    videos = [video for video in test_set.videos if video[0]["video_id"] in in_both]
    compared = collect(videos, folder)
    known = (compared.frames, test_set.classes)
    reference, detections = collect(videos, dense_folder).detections, compared.detections
    agreement = compute_agreement(
        *known, test_set.category_ids, reference, detections, frames_since_flush=compared.frames_since_flush
    )
    intervals = interval(AGREEMENT, resample_vid_ap50(*known, detections, reference))
    if test_set.is_annotated:
        ours, dense = (resample_vid_ap50(*known, table) for table in (detections, reference))
        intervals |= interval(CHANGE, None if ours is None else ours - dense)
    return agreement, intervals


def interval(name: str, values: np.ndarray | None) -> Metrics:
    """{"<name>-low", "<name>-high"} of resampled values; None where they are not known."""
    ends = None if values is None else percentiles(values)
    return dict(zip((f"{name}-low", f"{name}-high"), ends or (None, None)))
