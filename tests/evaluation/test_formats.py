"""Files for other programs."""

from __future__ import annotations

import csv
import errno
import json

import numpy as np
import pytest
from eventful_vitdet.evaluation import DetectionTable, evaluate_budgets, evaluate_once, formats
from eventful_vitdet.evaluation.formats import write_coco_detections, write_vid_submission

from .conftest import make_document, read_strict


def make_table(rows: int) -> DetectionTable:
    rng = np.random.default_rng(0)
    boxes = rng.uniform(0, 50, (rows, 4)).astype(np.float32)
    return DetectionTable(
        np.sort(rng.integers(1, 5, rows)).astype(np.int64),
        rng.integers(0, 2, rows).astype(np.int32),
        rng.uniform(size=rows).astype(np.float32),
        boxes,
    )


@pytest.mark.parametrize("rows", [0, 1, 4, 9])
def test_coco_file_in_pieces_is_one_list(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(formats, "ROWS_AT_ONCE", 4)
    table, path = make_table(rows), tmp_path / "a.json"
    write_coco_detections(str(path), table, [3, 7])
    entries = json.loads(path.read_text())
    assert [entry["image_id"] for entry in entries] == table.image_ids.tolist()
    assert [entry["category_id"] for entry in entries] == [(3, 7)[c] for c in table.classes]
    assert [np.float32(entry["score"]) for entry in entries] == table.scores.tolist()
    for entry, box in zip(entries, table.boxes):
        np.testing.assert_array_equal(np.float32(entry["bbox"]), [*box[:2], *(box[2:] - box[:2])])


def test_submission_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "ROWS_AT_ONCE", 4)
    table, path = make_table(9), tmp_path / "a.txt"
    write_vid_submission(str(path), table, {1: 10, 2: 20, 3: 30, 4: 40})
    lines = np.loadtxt(path)
    np.testing.assert_array_equal(lines[:, 0], 10 * table.image_ids)
    np.testing.assert_array_equal(lines[:, 1], table.classes + 1)
    np.testing.assert_array_equal(np.float32(lines[:, 2]), table.scores)  # nine digits bring every float32 back
    np.testing.assert_allclose(lines[:, 3:], table.boxes, atol=0.005)


def test_an_evaluation_writes_all_formats(cfg, model, tmp_path):
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.31  # the false box of a video's first two frames scores 0.30 and 0.31
    evaluate_once(cfg, model)
    folder = tmp_path / "out" / "inference"
    entries = read_strict(folder / "coco_instances_results.json")
    assert len(entries) == 16 - 2 and min(entry["score"] for entry in entries) >= 0.31
    submission = np.loadtxt(folder / "vid_submission.txt")
    assert submission.shape == (16, 7)
    assert submission[:, 0].tolist() == [number for number in range(1, 9) for _ in range(2)]
    assert submission[0].tolist() == [1, 1, pytest.approx(0.9), 2, 5, 22, 21]  # frame, "cat", score, the true box
    with open(folder / "videos.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["frames"] for row in rows] == ["5", "3"] and [row["flushes"] for row in rows] == ["1", "1"]
    assert [float(row[name]) for row in rows for name in ("AP25", "AP50")] == [pytest.approx(100)] * 4
    assert [float(row["VID-AP50"]) for row in rows] == [pytest.approx(100)] * 2
    assert float(rows[0]["total_gflops"]) == (100 + 4 * 10) / 5 / 1e9
    assert float(rows[0]["backbone_ms"]) > 0


def test_a_video_without_objects_has_a_row_without_ap(cfg, model, write_dataset, tmp_path):
    document = make_document({1: 2, 2: 2})
    document["annotations"] = [box for box in document["annotations"] if box["image_id"] < 200]
    cfg.DATASETS.TEST = (write_dataset(document, "half")[0],)
    evaluate_once(cfg, model)
    with open(tmp_path / "out" / "inference" / "videos.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["AP50"] != "", row["VID-AP50"] != "") for row in rows] == [(True, True), (False, False)]


def test_a_sweep_is_a_curve_over_cost_in_tensorboard(cfg, model, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model.scale = 10**6  # steps are millions of operations
    for budgets in (["dense"], ["20", "dense", "5"]):  # a second sweep replaces the first
        evaluate_budgets(cfg, model, budgets, restart=True)
    events = EventAccumulator(str(tmp_path / "out" / "inference" / "tensorboard"))
    events.Reload()
    combined = read_strict(tmp_path / "out" / "inference" / "budgets.json")
    points = {round(r["gflops_per_frame"]["backbone"]["mean"] * 1000): r["bbox"]["AP50"] for r in combined}
    assert len(points) == 3
    found = {event.step: event.value for event in events.Scalars("bbox/AP50")}
    assert found == pytest.approx(points)
    assert {event.step for event in events.Scalars("agreement/recall")} < set(points)


def test_a_sweep_that_cannot_be_written_leaves_the_earlier_one(cfg, model, tmp_path, monkeypatch):
    from torch.utils.tensorboard import SummaryWriter

    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = tmp_path / "out" / "inference"
    evaluate_budgets(cfg, model, ["5"])
    before = [path.read_bytes() for path in (folder / "tensorboard").iterdir()]
    monkeypatch.setattr(SummaryWriter, "add_scalar", full)
    with pytest.raises(OSError):
        evaluate_budgets(cfg, model, ["5"])
    assert [path.read_bytes() for path in (folder / "tensorboard").iterdir()] == before
    assert not list(folder.glob("tensorboard.*"))
