"""Average precision as COCO defines it, computed by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from detectron2.structures import BoxMode
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..errors import EvaluationError
from .detection_table import DetectionTable

AREAS = ("all", "small", "medium", "large")
"""COCOeval's areas in its order."""
LOOSE_IOU = 0.25
"""Evaluated before COCOeval's ten thresholds: a close detection overlaps a loosely annotated box by little more."""
IOUS = {"0.50-0.95": slice(1, None), "0.25": 0, "0.50": 1, "0.75": 6}
"""Positions in the thresholds: LOOSE_IOU, then 0.50, 0.55 ... 0.95."""
SUMMARY = {
    "AP": ("0.50-0.95", "all"),
    "AP25": ("0.25", "all"),
    "AP50": ("0.50", "all"),
    "AP75": ("0.75", "all"),
    "APs": ("0.50-0.95", "small"),
    "APm": ("0.50-0.95", "medium"),
    "APl": ("0.50-0.95", "large"),
}


BOXES, MASKS = "bbox", "segm"
"""What is compared, by COCOeval's names."""


def make_ground_truth(
    frames: Iterable[dict], category_ids: Sequence[int], classes: Sequence[str], kind: str = BOXES
) -> dict:
    """Turn frame dicts into a COCO ground-truth document, with the annotations' masks where `kind` is MASKS.

    `category_ids[i]` and `classes[i]` are the id and the name to give to contiguous class i.
    """
    document: dict = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in zip(category_ids, classes)],
    }
    for frame in frames:
        document["images"].append({"id": frame["image_id"], "height": frame["height"], "width": frame["width"]})
        for annotation in frame["annotations"]:
            box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYWH_ABS)
            document["annotations"].append(
                {
                    # pycocotools takes id 0 for "not matched".
                    "id": len(document["annotations"]) + 1,
                    "image_id": frame["image_id"],
                    "category_id": category_ids[annotation["category_id"]],
                    "bbox": list(box),
                    "area": annotation.get("area", box[2] * box[3]),
                    "iscrowd": annotation.get("iscrowd", 0),
                    **({"segmentation": annotation.get("segmentation", rectangle(box))} if kind == MASKS else {}),
                }
            )
    return document


def rectangle(box: Sequence[float]) -> list[list[float]]:
    """A box [x, y, width, height] as a polygon: the mask of a crowd without one."""
    x, y, width, height = box
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def compute_coco_metrics(ground_truth: dict, detections: Iterable[dict]) -> dict[str, float | None]:
    """AP, AP25, AP50, AP75, APs, APm, APl and AP-<class> in percent; None where there is no ground truth to define
    them.

    Args:
        ground_truth: COCO document with images, annotations and categories.
        detections: COCO results, each with image_id, category_id, bbox [x, y, width, height] and score; may
            be empty. Those of other images do not count.

    Raises EvaluationError if no annotation counts.
    """
    image_ids = {image["id"] for image in ground_truth["images"]}
    by_category: dict[int, list[dict]] = {}
    for detection in detections:
        if detection["image_id"] in image_ids:
            by_category.setdefault(detection["category_id"], []).append(detection)
    return _evaluate(ground_truth, lambda category_id: by_category.get(category_id, []))


def compute_table_metrics(
    frames: Sequence[dict],
    classes: Sequence[str],
    category_ids: Sequence[int],
    detections: DetectionTable,
    *,
    score_threshold: float,
    max_detections: int,
    kind: str = BOXES,
) -> dict[str, float | None]:
    """`compute_coco_metrics` of the detections with at least `score_threshold`, the best `max_detections` per frame.

    With `kind` MASKS, masks are compared; a detection without one does not count. The order of detections does not
    matter: equal scores are taken by ascending class, then box. Raises EvaluationError if no annotation counts.
    """
    chosen = keep_best(detections, score_threshold, max_detections)
    if kind == BOXES:
        chosen = replace(chosen, masks=None)
    label_of = {category_id: label for label, category_id in enumerate(category_ids)}

    def of_category(category_id: int) -> Iterator[dict]:
        table = chosen.select(np.flatnonzero(chosen.classes == label_of[category_id]))
        for entry in coco_entries(table, category_ids):
            if kind == BOXES or "segmentation" in entry:
                yield entry

    return _evaluate(make_ground_truth(frames, category_ids, classes, kind), of_category, kind)


def coco_entries(table: DetectionTable, category_ids: Sequence[int]) -> Iterator[dict]:
    """Detections as COCO results: image_id, category_id, bbox [x, y, width, height], score and, of those that have a
    mask, segmentation. `category_ids[i]` is the id of contiguous class i."""
    boxes = np.concatenate([table.boxes[:, :2], table.boxes[:, 2:] - table.boxes[:, :2]], axis=1)
    numbers = (table.image_ids.tolist(), table.classes.tolist(), boxes.tolist(), table.scores.tolist())
    for image_id, label, box, score, mask in zip(*numbers, table.mask_column()):
        entry = {"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score}
        if mask is not None:
            entry["segmentation"] = mask.as_coco()
        yield entry


def keep_best(detections: DetectionTable, score_threshold: float, max_detections: int) -> DetectionTable:
    """At most `max_detections` of each frame with at least `score_threshold`, sorted by frame and falling score."""
    table = detections.select(np.flatnonzero(detections.scores >= score_threshold))
    table = table.select(np.lexsort((*table.boxes.T[::-1], table.classes, -table.scores, table.image_ids)))
    first = np.searchsorted(table.image_ids, table.image_ids, "left")
    return table.select(np.arange(len(table)) - first < max_detections)


def _evaluate(
    ground_truth: dict, detections_of: Callable[[int], Iterable[dict]], kind: str = BOXES
) -> dict[str, float | None]:
    """Evaluate category by category, so that only one's detections exist as Python objects at a time."""
    if not any(not annotation["iscrowd"] for annotation in ground_truth["annotations"]):
        raise EvaluationError(
            f"the ground truth has no annotations in the {len(ground_truth['images'])} evaluated "
            "images, so no average precision is defined"
        )
    annotations: dict[int, list[dict]] = {}
    for annotation in ground_truth["annotations"]:
        annotations.setdefault(annotation["category_id"], []).append(annotation)
    images = {image["id"]: image for image in ground_truth["images"]}
    metrics = dict.fromkeys(SUMMARY)
    precisions = []
    for category in sorted(ground_truth["categories"], key=lambda category: category["id"]):
        precision = None
        if category["id"] in annotations:
            found = detections_of(category["id"])
            precision = _precision(category, images, annotations[category["id"]], found, kind)
            precisions.append(precision)
        metrics[f"AP-{category['name']}"] = (
            None if precision is None else mean_percent(precision[IOUS["0.50-0.95"], :, AREAS.index("all")])
        )
    stacked = np.stack(precisions, axis=2)
    for name, (iou, area) in SUMMARY.items():
        metrics[name] = mean_percent(stacked[IOUS[iou], ..., AREAS.index(area)])
    return metrics


def _precision(
    category: dict, images: dict[int, dict], annotations: list[dict], detections: Iterable[dict], kind: str
) -> np.ndarray:
    """(IoU thresholds, recalls, areas) precision of one category; -1 where no object counts."""
    # COCO.loadRes completes detections too, but fails on an empty list.
    completed = [
        {**detection, "id": i, "area": _area(detection, kind), "iscrowd": 0}
        for i, detection in enumerate(detections, start=1)
    ]
    # Images without the category contribute nothing, so they are left out.
    image_ids = sorted({entry["image_id"] for entries in (annotations, completed) for entry in entries})
    document = {"images": [images[i] for i in image_ids], "categories": [category]}
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress by print
        evaluation = COCOeval(make_index(document, annotations), make_index(document, completed), kind)
        # Precision is wanted at the largest limit only, 100 detections per image and category.
        evaluation.params.maxDets = evaluation.params.maxDets[-1:]
        # Thresholds are matched independently, so one more leaves the others as they are.
        evaluation.params.iouThrs = np.concatenate([[LOOSE_IOU], evaluation.params.iouThrs])
        evaluation.evaluate()
        evaluation.accumulate()
    # (IoU thresholds, recalls, categories, areas, limits)
    return evaluation.eval["precision"][:, :, 0, :, 0]


def _area(detection: dict, kind: str) -> float:
    """Square pixels of what is compared."""
    if kind == MASKS:
        return float(coco_mask.area(detection["segmentation"]))
    return detection["bbox"][2] * detection["bbox"][3]


def make_index(document: dict, annotations: list[dict]) -> COCO:
    """What COCOeval reads, of a document with these annotations or results."""
    coco = COCO()
    coco.dataset = {**document, "annotations": annotations}
    coco.createIndex()
    return coco


def mean_percent(precision: np.ndarray) -> float | None:
    """The mean of what is defined (COCOeval marks undefined values by -1); None where nothing is."""
    defined = precision[precision > -1]
    return 100 * float(defined.mean()) if defined.size else None
