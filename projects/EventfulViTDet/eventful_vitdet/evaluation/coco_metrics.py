"""Average precision as COCO defines it, computed by pycocotools."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterable

import numpy as np
from detectron2.structures import BoxMode
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .errors import EvaluationError

# Positions of the summary's values in COCOeval.stats.
SUMMARY = {"AP": 0, "AP50": 1, "AP75": 2, "APs": 3, "APm": 4, "APl": 5}


def make_ground_truth(frames: Iterable[dict], category_ids: list[int], classes: list[str]) -> dict:
    """Turn frame dicts into a COCO ground-truth document.

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
                }
            )
    return document


def compute_coco_metrics(ground_truth: dict, detections: list[dict]) -> dict[str, float | None]:
    """AP, AP50, AP75, APs, APm, APl and AP-<class> in percent; None where there is no ground truth to define
    them.

    Args:
        ground_truth: COCO document with images, annotations and categories.
        detections: COCO results, each with image_id, category_id, bbox [x, y, width, height] and score; may
            be empty.

    Raises EvaluationError if no annotation counts.
    """
    if not any(not annotation["iscrowd"] for annotation in ground_truth["annotations"]):
        raise EvaluationError(
            f"the ground truth has no annotations in the {len(ground_truth['images'])} evaluated "
            "images, so no average precision is defined"
        )
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports its progress by print
        evaluation = COCOeval(_index(ground_truth), _index_detections(ground_truth, detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    metrics = {name: _percent(evaluation.stats[i]) for name, i in SUMMARY.items()}
    # (IoU thresholds, recalls, classes, areas, detections per image); classes ascend by id.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    for position, category_id in enumerate(evaluation.params.catIds):
        of_class = precision[:, :, position]
        defined = of_class[of_class > -1]
        metrics[f"AP-{names[category_id]}"] = _percent(np.mean(defined) if defined.size else -1)
    return metrics


def _index(document: dict) -> COCO:
    coco = COCO()
    coco.dataset = document
    coco.createIndex()
    return coco


def _index_detections(ground_truth: dict, detections: list[dict]) -> COCO:
    # COCO.loadRes does this too, but fails on an empty list.
    annotations = [
        {**detection, "id": i, "area": detection["bbox"][2] * detection["bbox"][3], "iscrowd": 0}
        for i, detection in enumerate(detections, start=1)
    ]
    return _index({**ground_truth, "annotations": annotations})


def _percent(value: float) -> float | None:
    """COCOeval marks undefined values by -1."""
    return None if value < 0 or math.isnan(value) else float(value) * 100
