"""Divisions of the objects, and of the false detections that are charged to them, into ranges.

A mask (uint8) says in which ranges something counts: bit i stands for the i-th name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import EvaluationError
from .detection_table import DetectionTable
from .ground_truth import Objects
from .matching import Matches
from .motion import MOTION_RANGES, motion_ranges

SIZE_RANGES = {"small": 0, "medium": 32**2, "large": 96**2}
"""Least area of each range in square pixels; COCO's."""
AGE_RANGES = {"age-0": 0, "age-1-3": 1, "age-4-7": 4, "age-8-15": 8, "age-16-31": 16, "age-32+": 32}
"""Least number of frames since the flush in each range."""

COUNTED = 1  # the mark of an object that is no crowd; those of the motion ranges follow


@dataclass(frozen=True)
class Split:
    """Which of G objects and, if they find nothing, which of M detections count in each range."""

    names: tuple[str, ...]
    objects: np.ndarray
    """(G,) masks; what has no bit in a range is ignored there, and so is a detection that finds it."""
    detections: np.ndarray
    """(M,) masks of the ranges in which a detection without an object is a false positive."""


def mark_objects(objects: Objects, motion: np.ndarray) -> np.ndarray:
    """(G,) uint8: what `match_detections` hands on to false detections: COUNTED and the motion range."""
    marks = COUNTED + (_masks(motion_ranges(motion)) << 1)
    return np.where(objects.crowds, 0, marks).astype(np.uint8)


def undivided(marks: np.ndarray, matches: Matches) -> Split:
    """One range of everything but crowds and what lies in them."""
    return Split(("",), marks & COUNTED, matches.marks & COUNTED)


def by_motion(marks: np.ndarray, matches: Matches) -> Split:
    """By the motion of objects; false detections go with the object that they overlap most."""
    return Split(MOTION_RANGES, marks >> 1, matches.marks >> 1)


def by_size(objects: Objects, marks: np.ndarray, detections: DetectionTable, matches: Matches) -> Split:
    """By the area of objects; false detections by their own area, as in COCO."""
    boxes = detections.boxes
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    least = list(SIZE_RANGES.values())
    return Split(
        tuple(SIZE_RANGES),
        _only(marks, _range_masks(objects.areas, least)),
        _only(matches.marks, _range_masks(areas, least)),
    )


def by_age(objects: Objects, marks: np.ndarray, rows: np.ndarray, matches: Matches, ages: np.ndarray) -> Split:
    """By the frames since the flush; `ages` (F,) is that of each frame and `rows` (M,) a detection's frame."""
    of_frame = _range_masks(ages, list(AGE_RANGES.values()))
    return Split(tuple(AGE_RANGES), _only(marks, of_frame[objects.frames]), _only(matches.marks, of_frame[rows]))


def frame_ages(frames: Sequence[dict], frames_since_flush: Mapping[int, int]) -> np.ndarray:
    """(F,) int64. Raises EvaluationError, naming the image, for an age that is missing or below 0."""
    for frame in frames:
        if frames_since_flush.get(frame["image_id"], -1) < 0:
            raise EvaluationError(
                f"image {frame['image_id']} is evaluated, but its number of frames since a flush is not known "
                f"({frames_since_flush.get(frame['image_id'])}); expected 0 or more for each frame"
            )
    return np.array([frames_since_flush[frame["image_id"]] for frame in frames], np.int64)


def _masks(membership: np.ndarray) -> np.ndarray:
    """(N, ranges) bool as (N,) masks."""
    return (membership << np.arange(membership.shape[1])).sum(axis=1).astype(np.uint8)


def _range_masks(values: np.ndarray, least: Sequence[int]) -> np.ndarray:
    """Each value's only range: the last one whose least value it reaches (a negative one is in the first)."""
    return np.left_shift(1, np.searchsorted(least[1:], values, "right")).astype(np.uint8)


def _only(marks: np.ndarray, masks: np.ndarray) -> np.ndarray:
    return np.where(marks & COUNTED, masks, 0).astype(np.uint8)
