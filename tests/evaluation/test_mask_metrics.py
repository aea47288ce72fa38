"""Masks in an evaluation: what is asked of the model, segm AP, and the files that hold masks."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from eventful_vitdet.data import register_test_json
from eventful_vitdet.errors import EvaluationError
from eventful_vitdet.evaluation import evaluate_budgets, evaluate_once, read_record, record_paths, write_record
from eventful_vitdet.masks import NO_MASKS, MaskRequest, RunLengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from .conftest import OracleDetector, make_document, read_strict
from .test_store import assert_same, make_record


def with_masks(document: dict, kind: str = "polygon") -> dict:
    """The left half of each box is the object."""
    for annotation in document["annotations"]:
        x, y, width, height = annotation["bbox"]
        annotation["area"] = width * height / 2
        corners = [x, y, x + width / 2, y, x + width / 2, y + height, x, y + height]
        annotation["segmentation"] = [corners] if kind == "polygon" else _run_lengths(corners, document["videos"][0])
    return document


def _run_lengths(corners: list[float], video: dict) -> dict:
    x0, y0, x1, _, _, y1, *_ = map(int, corners)
    mask = np.zeros((video["height"], video["width"]), int)
    mask[y0:y1, x0:x1] = 1
    column = np.concatenate([[0], mask.T.ravel(), [2]])  # run lengths begin with zeros
    changes = np.flatnonzero(np.diff(column))
    return {"size": list(mask.shape), "counts": np.diff([0, *changes]).tolist()}


class MaskOracle(OracleDetector):
    """Has masks that cover `share` of each box, from the left."""

    def __init__(self, share: float = 0.5) -> None:
        super().__init__()
        self.roi_heads = SimpleNamespace(mask_on=True)
        self.mask_request = None
        self.share = share
        self.requests = []

    def detect(self, frame: dict):
        found = super().detect(frame)
        if "video_id" not in frame:
            return found
        self.requests.append(self.mask_request)
        mask = (torch.arange(28) < 28 * self.share).float().expand(2, 28, 28).clone()
        mask[~self.mask_request.choose(found.scores)] = float("nan")
        if self.mask_request.per_image:
            found.box_masks = mask
        return found


@pytest.fixture
def mask_cfg(cfg, write_dataset):
    def make(document: dict):
        cfg.DATASETS.TEST = (write_dataset(document, "masked")[0],)
        cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.31
        return cfg

    return make


@pytest.mark.parametrize("kind", ["polygon", "run lengths"])
def test_segm_ap_is_that_of_cocos_own_evaluation(mask_cfg, tmp_path, kind):
    document = with_masks(make_document({1: 5, 2: 3}), kind)
    cfg = mask_cfg(document)
    evaluate_once(cfg, MaskOracle(share=0.6))
    folder = tmp_path / "out" / "inference"
    results = read_strict(folder / "results.json")
    for image in document["images"]:
        image.update(width=document["videos"][0]["width"], height=document["videos"][0]["height"])
    for annotation in document["annotations"]:
        annotation["iscrowd"] = 0
    truth = COCO()
    truth.dataset = {"info": {}, **document}  # loadRes of pycocotools 2.0.10 fails without it
    truth.createIndex()
    own = COCOeval(truth, truth.loadRes(str(folder / "coco_instances_results.json")), "segm")
    own.evaluate()
    own.accumulate()
    own.summarize()
    assert results["segm"]["AP"] == pytest.approx(100 * own.stats[0]) and 10 < results["segm"]["AP"] < 90
    assert results["segm"]["AP75"] == pytest.approx(100 * own.stats[2])
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert set(results["segm"]) == {"AP", "AP25", "AP50", "AP75", "APs", "APm", "APl", "AP-cat", "AP-dog"}


def test_only_masks_that_are_compared_are_asked_for(mask_cfg, tmp_path):
    cfg, model = mask_cfg(with_masks(make_document({1: 5, 2: 3}))), MaskOracle()
    evaluate_once(cfg, model)
    assert set(model.requests) == {MaskRequest(0.31, 100)} and model.mask_request is None
    results = read_strict(tmp_path / "out" / "inference" / "results.json")
    assert results["segm"]["AP50"] == pytest.approx(100)
    (first, _) = (read_record(path).detections for path in record_paths(str(tmp_path / "out" / "inference")))
    assert [mask is None for mask in first.masks] == (first.scores < 0.31).tolist()


@pytest.mark.parametrize("lacking", ["all", "one"])
def test_no_annotated_masks_none_computed(mask_cfg, tmp_path, lacking):
    document = make_document({1: 5, 2: 3})
    if lacking == "one":
        with_masks(document)["annotations"][3].pop("segmentation")
    model = MaskOracle()
    evaluate_once(mask_cfg(document), model)
    assert set(model.requests) == {NO_MASKS}
    results = read_strict(tmp_path / "out" / "inference" / "results.json")
    assert "segm" not in results
    entries = read_strict(tmp_path / "out" / "inference" / "coco_instances_results.json")
    assert not any("segmentation" in entry for entry in entries)


def test_a_resumed_evaluation_has_the_same_masks(mask_cfg, tmp_path):
    cfg = mask_cfg(with_masks(make_document({1: 5, 2: 3})))
    evaluate_once(cfg, MaskOracle())
    path = tmp_path / "out" / "inference" / "results.json"
    before = read_strict(path)["segm"]
    path.unlink()
    model = MaskOracle()
    evaluate_once(cfg, model)
    assert model.requests == [] and read_strict(path)["segm"] == before
    # Other limits need other masks.
    cfg.TEST.DETECTIONS_PER_IMAGE = 1
    with pytest.raises(EvaluationError, match="masks was score 0.31, per image 100, now it is .* per image 1"):
        evaluate_once(cfg, model)
    evaluate_once(cfg, model, restart=True)
    assert set(model.requests) == {MaskRequest(0.31, 1)}


def test_a_real_model_with_masks_at_several_budgets(make_real, write_dataset, tmp_path):
    name, _ = write_dataset(with_masks(make_document({1: 4})), moving=True)
    cfg, model = make_real(
        name,
        MODEL__MASK_ON=True,
        MODEL__ROI_MASK_HEAD__CONV_DIM=8,
        MODEL__ROI_HEADS__SCORE_THRESH_TEST=0.2,
        TEST__DETECTIONS_PER_IMAGE=5,
    )
    evaluate_budgets(cfg, model, ["dense", "6"])
    folder = tmp_path / "out" / "inference"
    assert "| mask AP |" in (folder / "budgets.md").read_text()
    (record,) = (read_record(path) for path in record_paths(str(folder / "6")))
    table = record.detections
    masked = np.array([mask is not None for mask in table.masks])
    assert (masked <= (table.scores >= 0.2)).all()
    assert 0 < np.bincount(np.searchsorted(record.image_ids, table.image_ids[masked])).max() <= 5
    assert all(mask[:2] == (48, 64) for mask in table.masks[masked])


@pytest.mark.parametrize("masks", [[None] * 5, [RunLengths(3, 4, b"03"), None, RunLengths(5, 6, b""), None, None]])
def test_masks_in_a_record(tmp_path, masks):
    record, column = make_record(), np.full(5, None, object)
    column[:] = masks
    record = replace(record, detections=replace(record.detections, masks=column))
    assert_same(read_record(write_record(str(tmp_path), record)), record)


def as_youtube_vis(document: dict, folder) -> dict:
    """The same data as a YouTube-VIS file, with images of the same frames: an object per video."""
    images = {image["id"]: image for image in document["images"]}
    objects, videos = [], []
    for video in document["videos"]:
        entries = [a for a in document["annotations"] if images[a["image_id"]]["video_id"] == video["id"]]
        names = [f"{video['id']}/{frame:05d}.png" for frame in range(len(entries))]
        (folder / str(video["id"])).mkdir(parents=True)
        for frame, name in enumerate(names):
            cv2.imwrite(str(folder / name), np.full((video["height"], video["width"], 3), 20 * frame, np.uint8))
        sizes = {key: video[key] for key in ("height", "width")}
        videos.append({"id": video["id"], "file_names": names, **sizes})
        lists = {"bboxes": "bbox", "segmentations": "segmentation", "areas": "area"}
        columns = {key: [entry[name] for entry in entries] for key, name in lists.items()}
        common = {"video_id": video["id"], "category_id": entries[0]["category_id"], "iscrowd": 0}
        objects.append({"id": video["id"], **common, **columns})
    return {"categories": document["categories"], "videos": videos, "annotations": objects}


def test_youtube_vis_files_have_the_numbers_of_the_same_data(mask_cfg, tmp_path):
    document = with_masks(make_document({1: 5, 2: 3}), "run lengths")
    cfg = mask_cfg(document)
    evaluate_once(cfg, MaskOracle(share=0.6))
    expected = read_strict(tmp_path / "out" / "inference" / "results.json")
    path = tmp_path / "vis" / "train.json"
    converted = as_youtube_vis(document, tmp_path / "vis" / "JPEGImages")
    path.write_text(json.dumps(converted))
    cfg.DATASETS.TEST, cfg.OUTPUT_DIR = (register_test_json(str(path)),), str(tmp_path / "vis_out")
    evaluate_once(cfg, MaskOracle(share=0.6))
    results = read_strict(tmp_path / "vis_out" / "inference" / "results.json")
    assert results["segm"] == expected["segm"] and results["bbox"] == expected["bbox"]
    assert 10 < results["segm"]["AP"] < 90
