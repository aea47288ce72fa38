"""How far VID-AP50 depends on which videos were evaluated: its values on videos drawn at random from them.

Whole videos are drawn, with replacement, since the frames of one are alike (Efron's bootstrap). The draws of two
evaluations of as many videos are the same, so the difference of their values is that on the same videos.
"""

from __future__ import annotations

import numpy as np

from .detection_table import DetectionTable
from .ground_truth import Objects
from .matching import Matches
from .object_ranges import Split

SAMPLES = 1000
MIN_VIDEOS = 5
"""Fewer videos than these say nothing about others."""
PERCENTILES = (2.5, 97.5)
MAX_LEVELS = 1024
"""Scores of a class at which its precision is looked at. With more true detections, the next lower such score stands
for each. Precision rises from one to the next by 1 in all, so that takes at most 100 / MAX_LEVELS from a value in
percent: little beside its interval. It bounds time and memory, whatever the number of detections."""
SEED = 20231002


def draw_videos(num_videos: int, samples: int = SAMPLES) -> np.ndarray:
    """(samples, V) float64: how often each video was drawn."""
    equal = np.full(num_videos, 1 / num_videos)
    return np.random.default_rng(SEED).multinomial(num_videos, equal, size=samples).astype(np.float64)


def resample(
    objects: Objects,
    detections: DetectionTable,
    matches: Matches,
    split: Split,
    object_videos: np.ndarray,
    detection_videos: np.ndarray,
    draws: np.ndarray,
) -> np.ndarray:
    """(samples,) VID-AP50 in percent of each draw: the mean over the classes that have an object there, else NaN.

    Args:
        objects, detections, matches: the G objects, the M detections, and which found which.
        split: which of them count; only its first range is looked at.
        object_videos, detection_videos: (G,) and (M,) number of each one's video, 0 ... V - 1.
        draws: (samples, V) of `draw_videos`.
    """
    counted, charged = split.objects & 1 == 1, split.detections & 1 == 1
    of_classes = []
    for label in np.unique(objects.classes[counted]):
        rows = np.flatnonzero(detections.classes == label)
        partners = matches.partners[rows]
        found, missed = rows[partners >= 0], rows[partners < 0]
        found = found[counted[matches.partners[found]]]
        missed = missed[charged[missed]]
        num_objects = draws @ _count(object_videos[counted & (objects.classes == label)], draws.shape[1])
        of_classes.append(
            _areas_under_curves(
                (detections.scores[found], detection_videos[found]),
                (detections.scores[missed], detection_videos[missed]),
                num_objects,
                draws,
            )
        )
    return _mean_of_defined(of_classes, len(draws))


def percentiles(values: np.ndarray) -> tuple[float, float] | None:
    """The ends of the 95 % interval of resampled values; None where none is defined."""
    defined = values[~np.isnan(values)]
    return tuple(np.percentile(defined, PERCENTILES).tolist()) if defined.size else None


def _areas_under_curves(
    true: tuple[np.ndarray, np.ndarray],
    false: tuple[np.ndarray, np.ndarray],
    num_objects: np.ndarray,
    draws: np.ndarray,
) -> np.ndarray:
    """(samples,) average precision of a class in percent, as `vid_ap.area_under_curve`; NaN without objects.

    `true` and `false` are scores and videos of the detections that found an object and of those that did not.
    """
    levels = _levels(true[0])
    gained = draws @ _count_by_level(*true, levels, draws.shape[1])
    mistaken = _from_above(draws @ _count_by_level(*false, levels, draws.shape[1]))
    found = _from_above(gained)
    precision = np.divide(found, found + mistaken, out=np.zeros_like(found), where=found > 0)
    area = (gained * np.maximum.accumulate(precision, axis=1)).sum(axis=1)
    return 100 * np.divide(area, num_objects, out=np.full(len(draws), np.nan), where=num_objects > 0)


def _levels(true_scores: np.ndarray) -> np.ndarray:
    """(L,) ascending scores, the smallest of a true detection among them."""
    if len(true_scores) > MAX_LEVELS:
        true_scores = np.sort(true_scores)[np.arange(MAX_LEVELS) * len(true_scores) // MAX_LEVELS]
    return np.unique(true_scores)


def _count_by_level(scores: np.ndarray, videos: np.ndarray, levels: np.ndarray, num_videos: int) -> np.ndarray:
    """(V, L) how many scores of each video reach each level, but not the next one."""
    level = np.searchsorted(levels, scores, "right") - 1
    reached = level >= 0
    cells = videos[reached] * len(levels) + level[reached]
    return _count(cells, num_videos * len(levels)).reshape(num_videos, len(levels))


def _count(cells: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(cells, minlength=size).astype(np.float64)


def _from_above(counts: np.ndarray) -> np.ndarray:
    """(samples, L): at each level those of all higher ones too."""
    return counts[:, ::-1].cumsum(axis=1)[:, ::-1]


def _mean_of_defined(of_classes: list[np.ndarray], samples: int) -> np.ndarray:
    values = np.array(of_classes).reshape(-1, samples)
    defined = ~np.isnan(values)
    total = np.where(defined, values, 0.0).sum(axis=0)
    return np.divide(total, defined.sum(axis=0), out=np.full(samples, np.nan), where=defined.any(axis=0))
