"""Objects to find in the evaluated frames, as columns of arrays, and where the rows of a table belong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.structures import BoxMode

from ..data.coco_vid import NO_TRACK, identity_of
from ..errors import EvaluationError
from .detection_table import DetectionTable


@dataclass(frozen=True)
class Objects:
    """G objects, sorted by frame, class and box, so that no result depends on the order of the annotations."""

    frames: np.ndarray
    """(G,) int64: position of the frame among the evaluated ones."""
    classes: np.ndarray
    """(G,) int64: contiguous class."""
    boxes: np.ndarray
    """(G, 4) float64: x0, y0, x1, y1 in pixels."""
    areas: np.ndarray
    """(G,) float64: square pixels, as annotated (of the box, where the annotation gives none)."""
    crowds: np.ndarray
    """(G,) bool: regions of many objects, which are never counted."""
    tracks: np.ndarray
    """(G,) int64: equal for the boxes of one track; NO_TRACK where it is unknown."""

    @classmethod
    def sorted(cls, frames, classes, boxes, areas, crowds, tracks) -> Objects:
        """Objects from columns in any order."""
        order = np.lexsort((tracks, crowds, areas, *boxes.T[::-1], classes, frames))
        return cls(*(column[order] for column in (frames, classes, boxes, areas, crowds, tracks)))

    @classmethod
    def of_frames(cls, frames: Sequence[dict]) -> Objects:
        """The annotations of frame dicts. Raises EvaluationError for an instance_id that names nothing."""
        entries = [(i, frame, box) for i, frame in enumerate(frames) for box in frame["annotations"]]
        boxes = np.array([corners(box) for _, _, box in entries], np.float64).reshape(-1, 4)
        sides = boxes[:, 2:] - boxes[:, :2]
        areas = [box.get("area") for _, _, box in entries]
        return cls.sorted(
            np.array([i for i, _, _ in entries], np.int64),
            np.array([box["category_id"] for _, _, box in entries], np.int64),
            boxes,
            np.where([area is None for area in areas], sides.prod(axis=1), np.array(areas, np.float64)),
            np.array([bool(box.get("iscrowd", 0)) for _, _, box in entries], bool),
            _number_tracks([_track_name(frame, box) for _, frame, box in entries]),
        )

    @classmethod
    def of_detections(cls, detections: DetectionTable, frames: np.ndarray) -> Objects:
        """Detections in the part of ground truth; `frames` (M,) is each row's frame position."""
        boxes = detections.boxes.astype(np.float64)
        return cls.sorted(
            frames.astype(np.int64),
            detections.classes.astype(np.int64),
            boxes,
            (boxes[:, 2:] - boxes[:, :2]).prod(axis=1),
            np.zeros(len(detections), bool),
            np.full(len(detections), NO_TRACK),
        )

    def __len__(self) -> int:
        return len(self.frames)


def locate_rows(frames: Sequence[dict], classes: Sequence[str], detections: DetectionTable) -> np.ndarray:
    """(M,) int32: for each detection the position of its frame in `frames`.

    Raises EvaluationError for an image listed twice, for a detection of another image or class, and for
    boxes or scores that are not finite.
    """
    image_ids = np.array([frame["image_id"] for frame in frames], np.int64)
    order = np.argsort(image_ids, kind="stable")
    ascending = image_ids[order]
    if (repeated := ascending[1:][ascending[1:] == ascending[:-1]]).size:
        raise EvaluationError(f"image {repeated[0]} is listed more than once among the evaluated frames")
    if not len(detections):
        return np.zeros(0, np.int32)
    _check_values(detections, len(classes))
    slots = np.searchsorted(ascending, detections.image_ids)
    slots[slots == len(ascending)] = 0
    if not len(ascending) or (foreign := ascending[slots] != detections.image_ids).any():
        image_id = detections.image_ids[foreign.argmax()] if len(ascending) else detections.image_ids[0]
        raise EvaluationError(f"there are detections in image {image_id}, which is not among the evaluated frames")
    return order.astype(np.int32)[slots]


def _check_values(detections: DetectionTable, num_classes: int) -> None:
    low, high = detections.classes.min(), detections.classes.max()
    if low < 0 or high >= num_classes:
        raise EvaluationError(
            f"a detection has class {low if low < 0 else high}, but the data set has {num_classes} classes, from 0"
        )
    # The extremes of a column are finite if all of it is; NaN is an extreme too.
    extremes = [end() for column in (detections.scores, detections.boxes) for end in (column.min, column.max)]
    if not np.isfinite(extremes).all():
        raise EvaluationError("a detection's box or score is not finite")


def corners(annotation: dict) -> Sequence[float]:
    """x0, y0, x1, y1 of an annotated box."""
    return BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)


def _track_name(frame: dict, annotation: dict) -> str | None:
    instance = identity_of(annotation)
    if instance == NO_TRACK:
        return None
    if not isinstance(instance, (int, str)):
        raise EvaluationError(
            f"frame {frame['frame_id']} of video {frame['video_id']} has an object with instance_id {instance!r}; "
            "expected an integer or text, or none at all"
        )
    return f"{frame['video_id']!r} {instance!r}"


def _number_tracks(names: Sequence[str | None]) -> np.ndarray:
    numbers = {name: number for number, name in enumerate(sorted({name for name in names if name is not None}))}
    return np.array([NO_TRACK if name is None else numbers[name] for name in names], np.int64)
