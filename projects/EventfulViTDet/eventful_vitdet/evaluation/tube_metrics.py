"""Average precision and recall of tubes as YouTube-VIS defines them, on pycocotools' evaluation."""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Optional

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.cocoeval import COCOeval

from .coco_metrics import AREAS, BOXES, MASKS, make_index, mean_percent
from .tubes import Tube

SIZES = ((0, 1e5**2), (0, 128**2), (128**2, 256**2), (256**2, 1e5**2))
"""Of AREAS, in square pixels, for the mean area of a tube over the frames that show it: not those of COCO."""
LIMITS = (1, 10, 100)
"""Tubes of a class that count in a video."""
PRECISIONS = {
    "AP": (slice(None), "all"),
    "AP50": (0, "all"),
    "AP75": (5, "all"),
    "APs": (slice(None), "small"),
    "APm": (slice(None), "medium"),
    "APl": (slice(None), "large"),
}
"""Positions in the thresholds 0.50, 0.55 ... 0.95, and area."""
RECALLS = {"AR1": 1, "AR10": 10}
"""Limits."""

TubeMetrics = dict[str, Optional[float]]


def undefined_tube_metrics(classes: Sequence[str]) -> TubeMetrics:
    """What `compute_tube_metrics` returns where nothing is known."""
    return dict.fromkeys([*PRECISIONS, *RECALLS, *(f"AP-{name}" for name in classes)])


def compute_tube_metrics(
    truth: Sequence[Tube], found: Sequence[Tube], classes: Sequence[str], kind: str = BOXES
) -> TubeMetrics:
    """AP, AP50, AP75, APs, APm, APl, AR1, AR10 and AP-<class> in percent; None where no tube of `truth` defines them.

    Two tubes overlap by the sum of their intersections over that of their unions, over all frames of the video.

    Args:
        truth: what is to be found; crowds are not counted.
        found: by falling score.
        classes: name of each contiguous class.
        kind: BOXES or MASKS. Of the latter, `found` may lack some or all; such frames do not count.
    """
    metrics = undefined_tube_metrics(classes)
    if kind == MASKS:
        found = [part for part in map(_masked_part, found) if len(part.frames)]
    labels = sorted({tube.label for tube in truth})
    if not labels:
        return metrics
    sides = [_by_label(tubes) for tubes in (truth, found)]
    tables = [_evaluate(*(side[label] for side in sides), kind) for label in labels]
    precision, recall = (np.stack(column, axis=-1) for column in zip(*tables))
    for name, (iou, area) in PRECISIONS.items():
        metrics[name] = mean_percent(precision[iou, :, AREAS.index(area)])
    for name, limit in RECALLS.items():
        metrics[name] = mean_percent(recall[:, AREAS.index("all"), LIMITS.index(limit)])
    for column, label in enumerate(labels):
        metrics[f"AP-{classes[label]}"] = mean_percent(precision[:, :, AREAS.index("all"), column])
    return metrics


def _by_label(tubes: Iterable[Tube]) -> Mapping[int, list[Tube]]:
    of_label = defaultdict(list)
    for tube in tubes:
        of_label[tube.label].append(tube)
    return of_label


def _masked_part(tube: Tube) -> Tube:
    """Its frames with a mask."""
    masks = tube.masks or [None] * len(tube.frames)
    rows = [row for row, mask in enumerate(masks) if mask is not None]
    return tube if len(rows) == len(masks) else tube.select(rows)


def _evaluate(truth: Sequence[Tube], found: Sequence[Tube], kind: str) -> tuple[np.ndarray, np.ndarray]:
    """(thresholds, recalls, areas) precision at the largest limit, and (thresholds, areas, limits) recall of one class;
    -1 where undefined."""
    # Videos without the class contribute nothing, so they are left out: of many classes, most are in few videos.
    videos = sorted({tube.video for tube in (*truth, *found)})
    document = {"images": [{"id": video} for video in videos], "categories": [{"id": truth[0].label}]}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress by print
        evaluation = TubeEvaluation(*(make_index(document, _entries(tubes, kind)) for tubes in (truth, found)))
        evaluation.kind = kind
        evaluation.params.areaRng, evaluation.params.maxDets = list(SIZES), list(LIMITS)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][:, :, 0, :, -1], evaluation.eval["recall"][:, 0]


def _entries(tubes: Sequence[Tube], kind: str) -> list[dict]:
    """Tubes as COCO's annotations; a video is what an image is there."""
    return [
        {
            "id": number,
            "image_id": tube.video,
            "category_id": tube.label,
            "area": _mean_area(tube, kind),
            "iscrowd": int(tube.crowd),
            "score": tube.score,
            "tube": tube,
        }
        for number, tube in enumerate(tubes, start=1)  # pycocotools takes id 0 for "not matched"
    ]


def _mean_area(tube: Tube, kind: str) -> float:
    """Of the frames in which it has any."""
    areas = _areas(tube.regions(kind)) if tube.areas is None else tube.areas
    return float(areas[areas > 0].mean()) if (areas > 0).any() else 0.0


def _areas(regions: np.ndarray | list[dict]) -> np.ndarray:
    """(F,) square pixels."""
    if isinstance(regions, np.ndarray):
        return regions[:, 2:].prod(axis=1)
    return coco_mask.area(regions).astype(np.float64)


class TubeEvaluation(COCOeval):
    """COCO's evaluation with videos in the place of images, and entries that have a "tube" to compare."""

    kind = BOXES

    def __init__(self, truth, found) -> None:
        super().__init__(truth, found, "bbox")  # with "segm" it would look for masks of images

    def computeIoU(self, imgId: int, catId: int) -> np.ndarray | list:
        """(D, G) overlaps of a video's found tubes, the best first, and annotated ones; [] where either are absent."""
        truth, found = self._gts[imgId, catId], self._dts[imgId, catId]
        if not truth or not found:
            return []
        # As COCO's own method ranks them.
        order = np.argsort([-entry["score"] for entry in found], kind="mergesort")[: self.params.maxDets[-1]]
        return tube_ious([found[i]["tube"] for i in order], [entry["tube"] for entry in truth], self.kind)


def tube_ious(found: Sequence[Tube], truth: Sequence[Tube], kind: str = BOXES) -> np.ndarray:
    """(D, G) intersections over unions, each summed over the frames of a video. A frame that shows one of the two only
    adds that one's area to the union. Crowds are compared like other objects."""
    sides = [[dict(zip(tube.frames.tolist(), tube.regions(kind))) for tube in tubes] for tubes in (found, truth)]
    common = np.zeros((len(found), len(truth)))
    for frame in set().union(*sides[0]) & set().union(*sides[1]):
        rows, columns = ([i for i, regions in enumerate(side) if frame in regions] for side in sides)
        first, second = ([side[i][frame] for i in shown] for side, shown in zip(sides, (rows, columns)))
        common[np.ix_(rows, columns)] += _intersections(first, second, kind)
    areas, others = (np.array([_areas(tube.regions(kind)).sum() for tube in tubes]) for tubes in (found, truth))
    union = areas[:, None] + others - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _intersections(first: list, second: list, kind: str) -> np.ndarray:
    """(D, G) square pixels of regions of one frame."""
    if kind == BOXES:
        first, second = np.array(first), np.array(second)
    ratio = coco_mask.iou(first, second, [0] * len(second))
    sums = _areas(first)[:, None] + _areas(second)
    common = ratio * sums / (1 + ratio)
    return common if kind == BOXES else np.rint(common)  # whole pixels, without rounding errors
