"""How much an object moves: its mean IoU with itself in the frames around."""

from __future__ import annotations

import numpy as np

from .ground_truth import NO_TRACK
from .matching import box_ious

MOTION_WINDOW = 10
"""Frame numbers before and after a frame that count as around it."""
FAST_BELOW, SLOW_ABOVE = 0.7, 0.9
MOTION_RANGES = ("slow", "medium", "fast")
DECIMALS = 9  # so that a mean that equals a threshold does so however its sum was rounded


def motion_ranges(motion: np.ndarray) -> np.ndarray:
    """(G, 3) bool: which of MOTION_RANGES each motion IoU is in; none for NaN."""
    slow, fast = motion > SLOW_ABOVE, motion < FAST_BELOW
    return np.stack([slow, ~slow & ~fast & ~np.isnan(motion), fast], axis=1)


def motion_ious(tracks: np.ndarray, frame_numbers: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(G,) float64: mean IoU of each box with its track's boxes in the other frames within MOTION_WINDOW.

    NaN where the track is unknown (NO_TRACK) or has no box there.

    Args:
        tracks: (G,) numbers that are equal for the boxes of one track, unique over all videos.
        frame_numbers: (G,) numbers of the frames in their videos.
        boxes: (G, 4) x0, y0, x1, y1.
    """
    motion = np.full(len(tracks), np.nan)
    order = np.lexsort((frame_numbers, tracks))
    order = order[tracks[order] != NO_TRACK]
    tracks, frame_numbers, boxes = tracks[order], frame_numbers[order], boxes[order]
    sums, counts = np.zeros(len(order)), np.zeros(len(order), np.int64)
    for distance in range(1, len(order)):  # in the sorted list, where the boxes around one are its neighbours
        gap = frame_numbers[distance:] - frame_numbers[:-distance]
        near = (tracks[distance:] == tracks[:-distance]) & (gap <= MOTION_WINDOW)
        if not near.any():
            break
        earlier = np.flatnonzero(near & (gap > 0))
        ious = box_ious(boxes[earlier], boxes[earlier + distance], pixel=0)
        for side in (earlier, earlier + distance):
            sums[side] += ious
            counts[side] += 1
    known = counts > 0
    motion[order[known]] = np.round(sums[known] / counts[known], DECIMALS)
    return motion
