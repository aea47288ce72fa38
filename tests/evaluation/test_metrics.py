"""Average precision: against pycocotools run directly on the written files, and on cases known by heart."""

from __future__ import annotations

import contextlib
import io
import json

import detectron2.evaluation
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances
from eventful_vitdet.data import build_video_test_loader
from eventful_vitdet.errors import DetectionError, EvaluationError
from eventful_vitdet.evaluation import VIDEvaluator, compute_coco_metrics
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .conftest import make_document, true_box


def pycocotools_directly(json_file: str, results_file: str) -> COCOeval:
    """Evaluate a results file against the images of the annotation file that it was made from."""
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO(json_file)
        for annotation in ground_truth.dataset["annotations"]:
            x, y, w, h = annotation["bbox"]
            annotation.update(area=w * h, iscrowd=0)
        ground_truth.dataset.setdefault("info", {})  # loadRes of pycocotools 2.0.10 fails without it
        ground_truth.createIndex()
        evaluation = COCOeval(ground_truth, ground_truth.loadRes(results_file), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def noisy_output(frame: dict, rng: np.random.Generator) -> dict:
    """A few boxes around the true one, some bad, with random scores and classes."""
    boxes = np.array([true_box(frame["video_id"], frame["frame_id"])] * 6) + rng.normal(0, 1.5, (6, 4))
    found = Instances((frame["height"], frame["width"]))
    found.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32))
    found.scores = torch.tensor(rng.uniform(size=6), dtype=torch.float32)
    found.pred_classes = torch.tensor(rng.integers(0, 2, 6))
    return {"instances": found}


def test_metrics_equal_pycocotools_on_the_written_file(dataset, tmp_path):
    name, json_file = dataset
    evaluator, rng = VIDEvaluator(name, str(tmp_path / "inference")), np.random.default_rng(0)
    evaluator.reset()
    for frame in DatasetCatalog.get(name):
        evaluator.process([frame], [noisy_output(frame, rng)])
    metrics = evaluator.evaluate()["bbox"]
    direct = pycocotools_directly(json_file, str(tmp_path / "inference" / "coco_instances_results.json"))
    names = ("AP", "AP50", "AP75", "APs")
    # The same program on the same numbers: equal to rounding.
    np.testing.assert_allclose([metrics[n] / 100 for n in names], direct.stats[:4], rtol=1e-12)
    assert metrics["APm"] is None and metrics["APl"] is None and direct.stats[4] == direct.stats[5] == -1
    for position, label in enumerate(("cat", "dog")):
        precision = direct.eval["precision"][:, :, position, 0, 2]
        np.testing.assert_allclose(metrics[f"AP-{label}"] / 100, precision.mean(), rtol=1e-12)
    assert 1 < metrics["AP"] < 99  # neither trivial end, or the comparison would mean little


def test_only_processed_frames_count(dataset):
    name, _ = dataset
    evaluator = VIDEvaluator(name)
    evaluator.reset()
    for frame in DatasetCatalog.get(name)[:2]:
        output = noisy_output(frame, np.random.default_rng(0))
        output["instances"].pred_boxes.tensor[:] = torch.tensor(true_box(frame["video_id"], frame["frame_id"]))
        output["instances"].pred_classes[:] = 0
        evaluator.process([frame], [output])
    metrics = evaluator.evaluate()["bbox"]
    assert metrics["AP"] == pytest.approx(100)
    assert metrics["AP-dog"] is None  # there are dogs in the other video only


def test_works_in_detectron2s_own_loop(cfg, dataset, model):
    loop = getattr(detectron2.evaluation, "inference_on_dataset", None)
    if loop is None:
        pytest.skip("the embedded part of Detectron2 has no evaluation loop of its own")
    metrics = loop(model, build_video_test_loader(cfg, dataset[0]), VIDEvaluator(dataset[0], cfg.OUTPUT_DIR))
    # The false boxes score below all true ones, so they cost nothing.
    assert metrics["bbox"]["AP"] == pytest.approx(100)


def coco(boxes: list[list[float]], crowd: int = 0) -> dict:
    return {
        "images": [{"id": 1, "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "thing"}, {"id": 2, "name": "other"}],
        "annotations": [
            {"id": i + 1, "image_id": 1, "category_id": 1, "bbox": b, "area": b[2] * b[3], "iscrowd": crowd}
            for i, b in enumerate(boxes)
        ],
    }


def detection(box: list[float], score: float = 0.9) -> dict:
    return {"image_id": 1, "category_id": 1, "bbox": box, "score": score}


def test_half_of_the_objects_found():
    metrics = compute_coco_metrics(coco([[0, 0, 40, 40], [50, 50, 40, 40]]), [detection([0, 0, 40, 40])])
    # Precision 1 up to recall 0.5: 51 of the 101 recall points.
    assert metrics["AP50"] == pytest.approx(100 * 51 / 101)
    assert metrics["APm"] == pytest.approx(100 * 51 / 101)
    assert metrics["APs"] is None and metrics["AP-other"] is None


def test_overlap_between_the_thresholds():
    # Intersection 40 x 26 over union 40 x 40: IoU 0.65, reached by the thresholds 0.50, 0.55, 0.60 and 0.65.
    metrics = compute_coco_metrics(coco([[0, 0, 40, 40]]), [detection([0, 0, 40, 26])])
    assert metrics["AP50"] == pytest.approx(100) and metrics["AP75"] == 0
    assert metrics["AP"] == pytest.approx(40)


def test_ap25_takes_half_the_overlap_and_leaves_ap_alone():
    # IoU 0.4: enough for AP25, for no threshold of AP. A second object is overlapped by 0.2 only.
    truth = coco([[0, 0, 40, 40], [50, 50, 40, 40]])
    metrics = compute_coco_metrics(truth, [detection([0, 0, 40, 16]), detection([50, 50, 40, 8], 0.8)])
    assert metrics["AP25"] == pytest.approx(100 * 51 / 101)
    assert metrics["AP"] == metrics["AP50"] == metrics["AP-thing"] == 0


def test_no_detections_at_all():
    metrics = compute_coco_metrics(coco([[0, 0, 40, 40]]), [])
    assert metrics["AP"] == metrics["AP50"] == metrics["AP-thing"] == 0
    assert metrics["AP-other"] is None


@pytest.mark.parametrize("ground_truth", [coco([]), coco([[0, 0, 40, 40]], crowd=1)])
def test_no_annotations_at_all(ground_truth):
    with pytest.raises(EvaluationError, match="no annotations in the 1 evaluated images"):
        compute_coco_metrics(ground_truth, [])


def test_nothing_is_printed(capsys):
    compute_coco_metrics(coco([[0, 0, 40, 40]]), [])
    assert capsys.readouterr().out == ""


def test_data_set_without_annotations_is_refused_before_any_work(write_dataset):
    document = make_document({1: 2})
    document["annotations"] = []
    name, _ = write_dataset(document, "unlabelled")
    with pytest.raises(EvaluationError, match=f"'{name}' has no annotations"):
        VIDEvaluator(name)


@pytest.mark.parametrize("field, value", [("scores", float("nan")), ("boxes", float("inf"))])
def test_detections_that_are_no_numbers(dataset, field, value):
    name, _ = dataset
    frame = DatasetCatalog.get(name)[6]
    output = noisy_output(frame, np.random.default_rng(0))
    if field == "scores":
        output["instances"].scores[2] = value
    else:
        output["instances"].pred_boxes.tensor[2, 1] = value
    with pytest.raises(DetectionError, match=r"not finite for frame 1 of video 2 \(.*2.avi\)"):
        VIDEvaluator(name).process([frame], [output])


def test_class_that_the_data_set_does_not_have(dataset):
    name, _ = dataset
    frame = DatasetCatalog.get(name)[0]
    output = noisy_output(frame, np.random.default_rng(0))
    output["instances"].pred_classes[0] = 2
    with pytest.raises(EvaluationError, match="predicts class 2, but .* has 2 classes; set MODEL.ROI_HEADS"):
        VIDEvaluator(name).process([frame], [output])


def test_image_of_another_data_set(dataset):
    with pytest.raises(EvaluationError, match="image 77 does not belong"):
        VIDEvaluator(dataset[0]).process([{"image_id": 77}], [{}])


def test_reset_forgets(dataset, tmp_path):
    name, _ = dataset
    evaluator, frames = VIDEvaluator(name, str(tmp_path)), DatasetCatalog.get(name)
    evaluator.process([frames[0]], [noisy_output(frames[0], np.random.default_rng(0))])
    evaluator.reset()
    evaluator.process([frames[1]], [noisy_output(frames[1], np.random.default_rng(0))])
    evaluator.evaluate()
    written = json.loads((tmp_path / "coco_instances_results.json").read_text())
    assert {result["image_id"] for result in written} == {101}
    assert {result["category_id"] for result in written} <= {3, 7}
