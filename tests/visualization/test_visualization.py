from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from eventful_vitdet.errors import DatasetError
from eventful_vitdet.evaluation import evaluate_budgets
from eventful_vitdet.structures import Detections
from eventful_vitdet.video import probe_video
from eventful_vitdet.visualization import (
    add_strip,
    annotate_budgets,
    class_color,
    draw_detections,
    plot_budgets,
    plot_tradeoff,
)
from eventful_vitdet.visualization.strip import LINE as STRIP_HEIGHT

from .conftest import HEIGHT, WIDTH


def detections(*rows: tuple[list[float], float, int]) -> Detections:
    boxes, scores, classes = zip(*rows)
    return Detections(np.array(boxes, np.float32), np.array(scores, np.float32), np.array(classes, np.int32))


def test_boxes_are_drawn_where_they_are_and_weak_ones_are_not():
    image = np.zeros((60, 100, 3), np.uint8)
    found = detections(([20, 30, 60, 50], 0.8, 1), ([70, 10, 90, 40], 0.2, 0))
    drawn = draw_detections(image, found, ["a", "b"])
    assert tuple(int(v) for v in drawn[50, 40]) == class_color(1)
    assert tuple(int(v) for v in drawn[40, 20]) == class_color(1)
    assert not drawn[:, 75:].any() and not image.any()


def test_box_at_the_upper_edge_keeps_its_label_inside():
    drawn = draw_detections(np.zeros((60, 100, 3), np.uint8), detections(([80, 0, 99, 30], 0.8, 0)), ["aeroplane"])
    assert drawn.shape == (60, 100, 3) and drawn[:10, 30:70].any()


def test_colors_are_stable_and_differ():
    colors = [class_color(i) for i in range(30)]
    assert len(set(colors)) == 30 and colors == [class_color(i) for i in range(30)]


def test_strip_adds_rows_and_leaves_the_picture():
    image = np.full((40, 64, 3), 77, np.uint8)
    with_strip = add_strip(image, "a text that is far too long for sixty-four pixels")
    assert with_strip.shape == (40 + STRIP_HEIGHT, 64, 3)
    assert (with_strip[:40] == 77).all() and with_strip[40:].max() > 100


def test_one_annotated_video_per_budget(cfg, model, tmp_path):
    (name,) = cfg.DATASETS.TEST
    paths = annotate_budgets(cfg, model, ["dense", 5], name, str(tmp_path / "videos"), video_index=1)
    assert paths == [str(tmp_path / "videos" / f"{b}.mp4") for b in ("dense", "5")]
    assert model.seen == [(2, 0), (2, 1), (2, 2)] * 2
    for path in paths:
        info = probe_video(path)
        assert (info.width, info.height, info.num_frames) == (WIDTH, HEIGHT + STRIP_HEIGHT, 3)
    capture = cv2.VideoCapture(paths[1])
    _, first = capture.read()
    assert first[6:22, 2:22].std() > 20  # a box was drawn on the uniform frame
    with pytest.raises(DatasetError, match="has 2 videos, so there is no video 2"):
        annotate_budgets(cfg, model, ["dense"], name, str(tmp_path), video_index=2)


def test_frame_rate_follows_the_step(cfg, model, tmp_path, write_dataset):
    from eventful_vitdet.visualization import annotate_video

    (name,) = cfg.DATASETS.TEST
    frames = [{**f, "frame_step": 2} for f in DatasetCatalog.get(name)[:5:2]]
    annotate_video(cfg, model, frames, name, str(tmp_path / "v.mp4"), label="x")
    assert probe_video(str(tmp_path / "v.mp4")).fps == 15.0


def test_plot(cfg, model, tmp_path):
    evaluate_budgets(cfg, model, ["dense", 5, 9])
    path = tmp_path / "plots" / "tradeoff.png"
    plot_budgets(f"{cfg.OUTPUT_DIR}/inference/budgets.json", str(path), "a title")
    picture = cv2.imread(str(path))
    assert picture.shape[1] > picture.shape[0] > 300 and picture.std() > 5


def test_plot_without_defined_values(cfg, model, tmp_path):
    (results,) = evaluate_budgets(cfg, model, ["dense"]).values()
    results = json.loads(json.dumps(results))
    results[0]["bbox"]["AP50"] = None
    plot_tradeoff(results, str(tmp_path / "a.png"))
    assert cv2.imread(str(tmp_path / "a.png")) is not None
