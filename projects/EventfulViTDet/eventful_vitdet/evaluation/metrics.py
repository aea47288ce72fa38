"""All metrics of an evaluation from its table of detections, and agreement with a reference. See docs/metrics.md."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Optional

import numpy as np

from .bootstrap import MIN_VIDEOS, draw_videos, resample
from .coco_metrics import MASKS, SUMMARY, compute_table_metrics
from .detection_table import DetectionTable
from .ground_truth import NO_TRACK, Objects, locate_rows
from .matching import Matches, box_ious, match_detections
from .motion import MOTION_RANGES, MOTION_WINDOW, motion_ious
from .object_ranges import (
    AGE_RANGES,
    SIZE_RANGES,
    Split,
    by_age,
    by_motion,
    by_size,
    frame_ages,
    mark_objects,
    undivided,
)
from .vid_ap import average_precisions, mean_over_classes, object_shares

VID_AP50 = "VID-AP50"
CHANGE = f"{VID_AP50}-change"
"""VID-AP50 less that of the dense model on the same videos."""
AGREEMENT = "agreement"
AGREEMENT_SCORE = 0.5
"""Score from which on a detection of the reference counts as an object."""
NOTEWORTHY = 0.01
"""Share of the objects from which on it is worth a warning that they are ignored."""

logger = logging.getLogger(__name__)

Metrics = dict[str, Optional[float]]


def compute_metrics(
    frames: Sequence[dict],
    classes: Sequence[str],
    category_ids: Sequence[int],
    detections: DetectionTable,
    *,
    score_threshold: float,
    max_detections: int,
    frames_since_flush: Mapping[int, int] | None = None,
    masks: bool = False,
) -> dict[str, Metrics]:
    """Compare detections with the annotations of the evaluated frames.

    Args:
        frames: dicts with image_id, video_id, frame_id, height, width and annotations.
        classes: name of each contiguous class.
        category_ids: its id in the data set's file.
        detections: all detections of these frames, down to the low score that VID-AP50 needs.
        score_threshold: for COCO's figures, only detections with at least this score count ...
        max_detections: ... and of those the best so many of each frame.
        frames_since_flush: by image_id, how many frames ago everything was last computed; 0 for a flush
            frame. None leaves the metrics of the group "stability" undefined.
        masks: compare masks too, by COCO's rules: the group "segm".

    Returns {"bbox", "motion", "size", "stability": {metric: percent, or None where it is undefined}}.
    Raises EvaluationError if no annotation counts, and for what `locate_rows` and `frame_ages` refuse.
    """
    rows = locate_rows(frames, classes, detections)
    ages = None if frames_since_flush is None else frame_ages(frames, frames_since_flush)
    known = (frames, classes, category_ids, detections)
    limits = {"score_threshold": score_threshold, "max_detections": max_detections}
    coco = compute_table_metrics(*known, **limits)
    of_masks = {MASKS: compute_table_metrics(*known, **limits, kind=MASKS)} if masks else {}
    objects = Objects.of_frames(frames)
    marks, matches = _match(objects, detections, rows, _motion(frames, objects))
    splits = [undivided(marks, matches), by_motion(marks, matches), by_size(objects, marks, detections, matches)]
    if ages is not None:
        splits.append(by_age(objects, marks, rows, matches, ages))
    whole, motion, size, *stability = average_precisions(objects, detections, matches, splits, len(classes))
    return {
        "bbox": {**coco, **_by_class(whole[0], classes)},
        **of_masks,
        "motion": _by_range(splits[1], motion),
        "size": _by_range(splits[2], size),
        "stability": _by_range(splits[3], stability[0]) if stability else _undefined(AGE_RANGES),
    }


def undefined_metrics(classes: Sequence[str]) -> dict[str, Metrics]:
    """What `compute_metrics` returns, all None: for frames that nobody has annotated."""
    names = [*SUMMARY, VID_AP50, *(f"{kind}-{name}" for kind in ("AP", VID_AP50) for name in classes)]
    ranges = {"motion": MOTION_RANGES, "size": SIZE_RANGES, "stability": AGE_RANGES}
    return {"bbox": dict.fromkeys(names), **{group: _undefined(of_group) for group, of_group in ranges.items()}}


def compute_vid_ap50(frames: Sequence[dict], classes: Sequence[str], detections: DetectionTable) -> Metrics:
    """VID-AP50 only, {"VID-AP50", "VID-AP50-<class>": percent or None}: what a single video's row needs.

    Raises EvaluationError for what `locate_rows` refuses; frames without objects make all values None.
    """
    rows = locate_rows(frames, classes, detections)
    objects = Objects.of_frames(frames)
    marks, matches = _match(objects, detections, rows)
    (whole,) = average_precisions(objects, detections, matches, [undivided(marks, matches)], len(classes))
    return _by_class(whole[0], classes)


def resample_vid_ap50(
    frames: Sequence[dict],
    classes: Sequence[str],
    detections: DetectionTable,
    reference: DetectionTable | None = None,
    *,
    confidence: float = AGREEMENT_SCORE,
) -> np.ndarray | None:
    """(samples,) VID-AP50 in percent on videos drawn at random from those of `frames`: see bootstrap.py.

    The objects are the annotated ones or, with a `reference`, its detections from a score of `confidence` on. None with
    fewer videos than MIN_VIDEOS. Raises EvaluationError for what `locate_rows` refuses.
    """
    names, videos = np.unique([str(frame["video_id"]) for frame in frames], return_inverse=True)
    if len(names) < MIN_VIDEOS:
        return None
    rows = locate_rows(frames, classes, detections)
    if reference is None:
        objects = Objects.of_frames(frames)
    else:
        objects = _confident_objects(frames, classes, reference, confidence)
    marks, matches = _match(objects, detections, rows)
    of_objects, of_detections = videos[objects.frames], videos[rows]
    whole, draws = undivided(marks, matches), draw_videos(len(names))
    return resample(objects, detections, matches, whole, of_objects, of_detections, draws)


def compute_agreement(
    frames: Sequence[dict],
    classes: Sequence[str],
    category_ids: Sequence[int],
    reference: DetectionTable,
    detections: DetectionTable,
    *,
    confidence: float = AGREEMENT_SCORE,
    frames_since_flush: Mapping[int, int] | None = None,
) -> Metrics:
    """Compare detections with those of a reference, usually the dense model. Needs no annotations.

    Args:
        frames, classes, category_ids: as for `compute_metrics`; annotations are not looked at.
        reference: detections of the reference; those with a score of at least `confidence` are the objects.
        detections: what is compared, all of it.
        confidence: see above; "precision" takes detections from the same score on.
        frames_since_flush: as for `compute_metrics`; adds VID-AP50 by age.

    Returns percent, or None where undefined: "VID-AP50" and "VID-AP50-<class>" of `detections`; "recall", the
    share of objects that a detection of at least `confidence` found; "precision", the share of such detections that
    found an object; "IoU", the mean overlap of these pairs.
    Raises EvaluationError for what `locate_rows` and `frame_ages` refuse.
    """
    rows = locate_rows(frames, classes, detections)
    objects = _confident_objects(frames, classes, reference, confidence)
    marks, matches = _match(objects, detections, rows)
    splits = [undivided(marks, matches)]
    if frames_since_flush is not None:
        splits.append(by_age(objects, marks, rows, matches, frame_ages(frames, frames_since_flush)))
    whole, *stability = average_precisions(objects, detections, matches, splits, len(classes))
    return {
        **_by_class(whole[0], classes),
        **_confident_pairs(objects, detections, matches, confidence),
        **(_by_range(splits[1], stability[0]) if stability else {}),
    }


def _confident_objects(
    frames: Sequence[dict], classes: Sequence[str], reference: DetectionTable, confidence: float
) -> Objects:
    confident = reference.scores >= confidence
    return Objects.of_detections(reference.select(confident), locate_rows(frames, classes, reference)[confident])


def _match(
    objects: Objects, detections: DetectionTable, rows: np.ndarray, motion: np.ndarray | None = None
) -> tuple[np.ndarray, Matches]:
    """The objects' marks and what became of the detections; without `motion`, the marks know no motion range."""
    marks = mark_objects(objects, np.full(len(objects), np.nan) if motion is None else motion)
    return marks, match_detections(objects, detections, rows, object_marks=marks)


def _motion(frames: Sequence[dict], objects: Objects) -> np.ndarray:
    """(G,) motion IoU of each object; says once how many have none, and why. Of a few, only the log tells."""
    numbers = np.array([frame["frame_id"] for frame in frames], np.int64)
    motion = motion_ious(objects.tracks, numbers[objects.frames], objects.boxes)
    counted = ~objects.crowds
    unknown = int((counted & np.isnan(motion)).sum())
    if unknown:
        few = unknown < NOTEWORTHY * counted.sum()
        no_track = int((counted & (objects.tracks == NO_TRACK)).sum())
        logger.log(
            logging.DEBUG if few else logging.WARNING,
            "%s of %d objects have no motion IoU and are ignored in the metrics by motion%s: %d have no track "
            "(instance_id), %d are alone in their track within %d frames",
            *("all" if unknown == counted.sum() else unknown, counted.sum()),
            ", which are undefined" if unknown == counted.sum() else "",
            *(no_track, unknown - no_track, MOTION_WINDOW),
        )
    return motion


def _by_class(values: np.ndarray, classes: Sequence[str]) -> Metrics:
    """VID-AP50 of (classes,) values."""
    of_class = {f"{VID_AP50}-{name}": mean_over_classes(values[i : i + 1]) for i, name in enumerate(classes)}
    return {VID_AP50: mean_over_classes(values), **of_class}


def _by_range(split: Split, values: np.ndarray) -> Metrics:
    """VID-AP50 of (ranges, classes) values, and how many of the objects are in each range."""
    precisions = {f"{VID_AP50}-{name}": mean_over_classes(of_range) for name, of_range in zip(split.names, values)}
    return {**precisions, **{f"objects-{name}": share for name, share in zip(split.names, object_shares(split))}}


def _undefined(names: Iterable[str]) -> Metrics:
    """What `_by_range` returns where nothing is known."""
    return dict.fromkeys([f"{kind}-{name}" for kind in (VID_AP50, "objects") for name in names])


def _confident_pairs(objects: Objects, detections: DetectionTable, matches: Matches, confidence: float) -> Metrics:
    confident = detections.scores >= confidence
    paired = np.flatnonzero(confident & (matches.partners >= 0))
    ious = box_ious(detections.boxes[paired].astype(np.float64), objects.boxes[matches.partners[paired]], pixel=0)

    def percent(part: float, of: int) -> float | None:
        return 100 * float(part) / of if of else None

    return {
        "recall": percent(paired.size, len(objects)),
        "precision": percent(paired.size, int(confident.sum())),
        "IoU": percent(ious.sum(), paired.size),
    }
