"""The metrics once more, straight from their definitions: plain loops over plain numbers, one range at a time.

Shares nothing with eventful_vitdet.evaluation. An object is a dict with frame, label, box, and whatever a
range needs; a detection has frame, label, score and box.
"""

from __future__ import annotations

import math
from collections.abc import Callable


def overlap(a: list[float], b: list[float], pixel: float) -> float:
    """IoU of two boxes x0, y0, x1, y1 whose sides are longer by `pixel` than the coordinates' differences."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + pixel
    height = min(a[3], b[3]) - max(a[1], b[1]) + pixel
    common = max(width, 0) * max(height, 0)
    sizes = [max(box[2] - box[0] + pixel, 0) * max(box[3] - box[1] + pixel, 0) for box in (a, b)]
    return common / (sum(sizes) - common) if sum(sizes) > common else 0.0


def share_inside(box: list[float], region: list[float]) -> float:
    """Which part of a box's pixels a region covers."""
    columns = max(min(box[2], region[2]) - max(box[0], region[0]) + 1, 0)
    rows = max(min(box[3], region[3]) - max(box[1], region[1]) + 1, 0)
    return columns * rows / ((box[2] - box[0] + 1) * (box[3] - box[1] + 1))


def label_outcomes(
    objects: list[dict],
    detections: list[dict],
    label: int,
    counts: Callable[[dict], bool],
    is_charged: Callable[[dict, list[dict]], bool],
) -> tuple[list[float], list[float], int]:
    """Scores of true and of false positives of a class, and its number of counted objects, all in one range.

    `is_charged` is asked about a detection that found none of the objects given with it, of its class and frame, and
    that lies in no crowd; crowds are neither found nor counted.
    """
    true_scores, false_scores = [], []
    for frame in {entry["frame"] for entry in (*objects, *detections)}:
        here = [o for o in objects if (o["frame"], o["label"]) == (frame, label)]
        crowds = [o["box"] for o in here if o["crowd"]]
        here = sorted((o for o in here if not o["crowd"]), key=lambda o: o["box"])
        free = list(here)
        found = [d for d in detections if (d["frame"], d["label"]) == (frame, label)]
        for detection in sorted(found, key=lambda d: (-d["score"], d["box"])):
            best, best_overlap = None, 0.5
            for candidate in free:
                value = overlap(candidate["box"], detection["box"], 1)
                if value >= 0.5 and (best is None or value > best_overlap):
                    best, best_overlap = candidate, value
            if best is not None:
                free.remove(best)
                if counts(best):
                    true_scores.append(detection["score"])
            elif all(share_inside(detection["box"], crowd) < 0.5 for crowd in crowds) and is_charged(detection, here):
                false_scores.append(detection["score"])
    return true_scores, false_scores, sum(o["label"] == label and not o["crowd"] and counts(o) for o in objects)


def charged_to_nearest(counts: Callable[[dict], bool]) -> Callable[[dict, list[dict]], bool]:
    """The rule of the motion ranges: false unless an ignored object is nearer than all counted ones."""

    def rule(detection: dict, here: list[dict]) -> bool:
        nearest = {True: -1.0, False: -1.0}
        for candidate in here:
            side = counts(candidate)
            nearest[side] = max(nearest[side], overlap(candidate["box"], detection["box"], 1))
        return not here or nearest[True] >= nearest[False]

    return rule


def average_precision(true_scores: list[float], false_scores: list[float], num_objects: int) -> float | None:
    """Mean over the objects of the best precision at which at least so many objects are found, in percent."""
    if not num_objects:
        return None
    points = []
    for threshold in set(true_scores) | set(false_scores):
        true, false = (sum(s >= threshold for s in scores) for scores in (true_scores, false_scores))
        points.append((true, true / (true + false)))
    best = [max((p for found, p in points if found >= n), default=0.0) for n in range(1, num_objects + 1)]
    return 100 * sum(best) / num_objects


def mean_average_precision(
    objects: list[dict],
    detections: list[dict],
    num_classes: int,
    counts: Callable[[dict], bool],
    is_charged: Callable[[dict, list[dict]], bool],
) -> float | None:
    """Mean over the classes that have a counted object."""
    values = []
    for label in range(num_classes):
        value = average_precision(*label_outcomes(objects, detections, label, counts, is_charged))
        if value is not None:
            values.append(value)
    return sum(values) / len(values) if values else None


def motion_iou(entry: dict, objects: list[dict]) -> float:
    """Mean IoU with the same track's boxes in the other frames at most 10 frame numbers away; NaN for none."""
    if entry["track"] is None:
        return math.nan
    values = [
        overlap(entry["box"], other["box"], 0)
        for other in objects
        if other["video"] == entry["video"]
        and other["track"] == entry["track"]
        and 1 <= abs(other["number"] - entry["number"]) <= 10
    ]
    return sum(values) / len(values) if values else math.nan
