"""Which detections of a video's frames are one object: the tracker's answer, completed by first frames."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from torchvision.ops import nms

from ..identities import UNKNOWN, ObjectTracker
from ..structures import Detections
from .detection_table import DetectionTable
from .matching import box_ious

SAME_OBJECT_IOU = 0.5
"""Above this IoU, boxes of several classes in one frame are one object: the tracker, which does not look at classes,
would confuse them."""
REMEMBERED_FRAMES = 30
"""An object that was not seen for so many frames is another one when it comes back."""

Members = list[tuple[int, int]]
"""(position of the frame, row) of an object's detections, by frame."""


def link_frames(table: DetectionTable, frames: Sequence[np.ndarray], min_score: float) -> list[Members]:
    """Link the detections of one video.

    A detection belongs to one object, or is left out: those that overlap a better one of the same frame by more
    than SAME_OBJECT_IOU, and those below `min_score` that continue no object. An object may have a single detection.

    Args:
        table: the detections.
        frames: the rows of each frame, the best first.
        min_score: from which score on a detection begins an object.

    Raises MissingPackageError without the tracker.
    """
    frames = [_without_duplicates(table, rows) for rows in frames]
    tracker = ObjectTracker(REMEMBERED_FRAMES, min_score)  # that many frames per second are remembered for a second
    found = [Detections(table.boxes[rows], table.scores[rows], table.classes[rows]) for rows in frames]
    tracks = [tracker.identify(of_frame, sequence=0).tracks for of_frame in found]
    _add_first_frames(tracks, found, min_score)
    objects: dict[object, Members] = defaultdict(list)
    for position, (rows, of_frame) in enumerate(zip(frames, tracks)):
        for row, track in zip(rows.tolist(), of_frame.tolist()):
            if track != UNKNOWN:
                objects[track].append((position, row))
            elif table.scores[row] >= min_score:
                objects["alone", row].append((position, row))
    return list(objects.values())


def _without_duplicates(table: DetectionTable, rows: np.ndarray) -> np.ndarray:
    """The rows of a frame without those that show a better one's object as another class."""
    boxes, scores = (torch.from_numpy(column[rows]) for column in (table.boxes, table.scores))
    return rows[np.sort(nms(boxes, scores, SAME_OBJECT_IOU).numpy())]


def _add_first_frames(tracks: Sequence[np.ndarray], found: Sequence[Detections], min_score: float) -> None:
    """Number, in place, the detections that objects began with.

    The tracker numbers an object in the second of two consecutive frames. The first is the detection without a number
    in the frame before, strong enough to begin an object, that overlaps it most.
    """
    seen: set[int] = set()
    for position, of_frame in enumerate(tracks):
        for row, track in enumerate(of_frame.tolist()):
            if track == UNKNOWN or track in seen:
                continue
            seen.add(track)
            before = np.flatnonzero((tracks[position - 1] == UNKNOWN) & (found[position - 1].scores >= min_score))
            if not before.size:
                continue
            box = np.repeat(found[position].boxes[[row]], len(before), axis=0)
            overlaps = box_ious(found[position - 1].boxes[before], box, pixel=0)
            if overlaps.max() > 0:
                tracks[position - 1][before[overlaps.argmax()]] = track
