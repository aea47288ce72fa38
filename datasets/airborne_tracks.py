"""Identities for boxes that have none: boxes of successive frames are linked by overlap, or else by distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from airborne_labels import Box, LabelledBox
from scipy.optimize import linear_sum_assignment

LONGEST_GAP = 5
"""Frames without a box over which an object keeps its identity."""
NEAR_PIXELS = 20.0
NEAR_SIDES = 1.5
"""Boxes that do not overlap are the same object within this distance of their centres, the larger of the two."""


@dataclass
class Track:
    """An object: its number, its class, and where and when it was seen last."""

    number: int
    name: str
    box: Box
    frame: int


def link_boxes(frames: Sequence[Sequence[LabelledBox]]) -> list[list[int]]:
    """The number of the object of every box of a clip; numbers count from 0, in the order in which objects appear."""
    tracks: list[Track] = []
    numbers = []
    for frame, boxes in enumerate(frames):
        open_tracks = [track for track in tracks if frame - track.frame <= LONGEST_GAP + 1]
        matched = match_boxes(open_tracks, boxes)
        of_frame = []
        for position, (name, box) in enumerate(boxes):
            track = matched.get(position)
            if track is None:
                track = Track(len(tracks), name, box, frame)
                tracks.append(track)
            track.box, track.frame = box, frame
            of_frame.append(track.number)
        numbers.append(of_frame)
    return numbers


def match_boxes(tracks: Sequence[Track], boxes: Sequence[LabelledBox]) -> dict[int, Track]:
    """Which boxes, by position, continue which tracks: the pairs of largest total overlap; nearness decides where
    nothing overlaps."""
    if not tracks or not boxes:
        return {}
    scores = np.array([[affinity(track, name, box) for name, box in boxes] for track in tracks])
    rows, columns = linear_sum_assignment(scores, maximize=True)
    return {int(column): tracks[row] for row, column in zip(rows, columns) if scores[row, column] > 0}


def affinity(track: Track, name: str, box: Box) -> float:
    """IoU with the track's last box; without overlap up to 0.001, by nearness, and 0 for another object."""
    if name != track.name:
        return 0.0
    (ax, ay, aw, ah), (bx, by, bw, bh) = track.box, box
    overlap = max(min(ax + aw, bx + bw) - max(ax, bx), 0.0) * max(min(ay + ah, by + bh) - max(ay, by), 0.0)
    if overlap > 0:
        return 0.001 + overlap / (aw * ah + bw * bh - overlap)
    distance = float(np.hypot(ax + aw / 2 - bx - bw / 2, ay + ah / 2 - by - bh / 2))
    near = max(NEAR_PIXELS, NEAR_SIDES * max(aw * ah, bw * bh) ** 0.5)
    return 0.001 * (1 - distance / near) if distance < near else 0.0
