"""VID-AP50: the area under the monotone precision-recall curve, of everything or of a range."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .detection_table import DetectionTable
from .ground_truth import Objects
from .matching import Matches
from .object_ranges import Split


def area_under_curve(true_scores: np.ndarray, false_scores: np.ndarray, num_objects: int) -> float | None:
    """Average precision, 0 ... 1; None without objects.

    Precision at a recall is the best one reached at that recall or any higher one. Detections of equal score
    are taken together, so their order has no influence.

    Args:
        true_scores: scores of the detections that found an object.
        false_scores: scores of those that did not.
        num_objects: how many objects there were to find.
    """
    if num_objects == 0:
        return None
    levels, gained = np.unique(true_scores, return_counts=True)  # ascending
    if not levels.size:
        return 0.0
    found = gained[::-1].cumsum()[::-1]
    above = np.sort(false_scores[false_scores >= levels[0]])
    mistaken = above.size - np.searchsorted(above, levels, "left")
    # Recall falls with ascending scores, so the best of all higher recalls is the best so far.
    best = np.maximum.accumulate(found / (found + mistaken))
    return float((gained * best).sum() / num_objects)


def average_precisions(
    objects: Objects, detections: DetectionTable, matches: Matches, splits: Sequence[Split], num_classes: int
) -> list[np.ndarray]:
    """For each split a (ranges, classes) array of AP in percent, NaN where there is no object."""
    results = [np.full((len(split.names), num_classes), np.nan) for split in splits]
    for label in np.unique(objects.classes):
        of_class = objects.classes == label
        rows = np.flatnonzero(detections.classes == label)
        scores, partners = detections.scores[rows], matches.partners[rows]
        hits = np.flatnonzero(partners >= 0)
        misses = np.flatnonzero(partners < 0)
        for split, result in zip(splits, results):
            found, charged = split.objects[partners[hits]], split.detections[rows[misses]]
            for i in range(len(split.names)):
                value = area_under_curve(
                    scores[hits[_in_range(found, i)]],
                    scores[misses[_in_range(charged, i)]],
                    int(_in_range(split.objects[of_class], i).sum()),
                )
                if value is not None:
                    result[i, label] = 100 * value
    return results


def object_shares(split: Split) -> list[float | None]:
    """Percentage of the objects in each range, of those that are in any; None if there are none."""
    ranged = split.objects[split.objects > 0]
    return [100 * float(_in_range(ranged, i).mean()) if ranged.size else None for i in range(len(split.names))]


def mean_over_classes(values: np.ndarray) -> float | None:
    """Mean of the classes that have a value; None if none has."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None


def _in_range(masks: np.ndarray, i: int) -> np.ndarray:
    return (masks >> i & 1).astype(bool)
