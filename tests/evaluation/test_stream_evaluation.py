from __future__ import annotations

import json
import math
import threading

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.utils import comm
from eventful_vitdet.data import DataError, VideoReadError, build_video_test_loader
from eventful_vitdet.evaluation import (
    CostSums,
    EvaluationError,
    FrameCost,
    VIDEvaluator,
    evaluate_budgets,
    evaluate_once,
    evaluate_stream,
    run_frames,
)
from eventful_vitdet.evaluation.budgets import parse_budgets
from eventful_vitdet.evaluation.results import format_budgets, format_table, to_strict, write_json

from .conftest import OracleDetector, make_document

EXPECTED_KEYS = {
    "bbox",
    "gflops_per_frame",
    "seconds_per_frame",
    "videos",
    "frames",
    "policy",
    "attention",
    "detectron2",
    "torch",
    "device",
}


def read_strict(path) -> object:
    def refuse(constant):
        raise AssertionError(f"{path} holds {constant}")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_frames_run_in_order_without_gradients_and_the_mode_is_restored(cfg, dataset, model):
    model.train()
    evaluate_stream(model, build_video_test_loader(cfg, dataset[0]), VIDEvaluator(dataset[0]))
    assert model.seen == [(1, i) for i in range(5)] + [(2, i) for i in range(3)]
    assert model.modes == {(False, False)}
    assert model.training and torch.is_grad_enabled()


def test_training_mode_and_hooks_are_restored_after_an_error(cfg, dataset, model):
    model.train()
    model.detect = lambda frame: 1 / 0
    with pytest.raises(ZeroDivisionError):
        evaluate_stream(model, build_video_test_loader(cfg, dataset[0]), VIDEvaluator(dataset[0]))
    assert model.training and not model.linear._forward_hooks
    assert not [thread for thread in threading.enumerate() if thread.name == "frame-reader"]


def test_the_consumer_of_run_frames_keeps_its_gradients(cfg, dataset, model):
    for _ in run_frames(model, build_video_test_loader(cfg, dataset[0])):
        assert torch.is_grad_enabled()


def test_the_model_starts_without_memory(cfg, dataset, model):
    model._last = 1  # as if it had just seen video 1
    frame = next(run_frames(model, build_video_test_loader(cfg, dataset[0])))
    assert frame[2].flushed


def test_costs_of_flush_and_later_frames(cfg, dataset, model):
    model.enabled = False
    _, sums = evaluate_stream(model, build_video_test_loader(cfg, dataset[0]), VIDEvaluator(dataset[0]))
    # Two videos of 5 and 3 frames: 2 flush frames of 100 operations, 6 later ones of 10.
    assert (sums.frames[True], sums.frames[False], sums.videos) == (2, 6, {1, 2})
    total = sums.gflops_per_frame()["total"]
    assert total["flush"] == 100 / 1e9 and total["later"] == 10 / 1e9
    assert total["mean"] == (200 + 60) / 8 / 1e9
    assert sum(total["by_category"].values()) == pytest.approx(total["mean"], rel=1e-12)
    assert sums.seconds_per_frame()["backbone"] == 0.25
    assert 0 < sums.seconds_per_frame()["total"] < 1


def cost(flushed: bool, **macs: int) -> FrameCost:
    return FrameCost(flushed, macs, 1.0, 3.0)


def test_backbone_is_position_encoding_and_blocks():
    sums = CostSums()
    sums.add(1, cost(True, linear=5, gate=0, embedding=100, heads=1000))
    sums.add(1, cost(False, linear=2, gate=1, embedding=100, heads=1001))
    gflops = sums.gflops_per_frame()
    assert (gflops["backbone"]["flush"], gflops["backbone"]["later"]) == (5e-9, 3e-9)
    assert (gflops["total"]["flush"], gflops["total"]["later"]) == (1105e-9, 1104e-9)
    assert gflops["backbone"]["by_category"] == {
        "linear": 3.5e-9,
        "bias": 0,
        "matmul": 0,
        "position": 0,
        "add": 0,
        "gate": 0.5e-9,
        "accumulator": 0,
    }
    assert gflops["total"]["by_category"]["heads"] == 2001 / 2 / 1e9


def test_sums_are_integers_divided_at_the_end():
    sums = CostSums()
    for _ in range(3):
        sums.add(1, cost(False, linear=2**53 + 1))  # an addition in floating point would lose the 1
    assert sums.macs[False]["linear"] == 3 * (2**53 + 1)


def test_single_frame_has_no_later_frames():
    sums = CostSums()
    sums.add(1, cost(True, linear=5))
    assert sums.gflops_per_frame()["backbone"]["later"] is None
    assert CostSums().seconds_per_frame() == {"backbone": None, "total": None}


def test_merged_sums_equal_one_run():
    costs = [(v, cost(i == 0, linear=v * 10 + i)) for v in (1, 2, 3) for i in range(4)]
    whole, parts = CostSums(), [CostSums(), CostSums()]
    for video, one in costs:
        whole.add(video, one)
        parts[video % 2].add(video, one)
    parts[0].merge(parts[1])
    assert parts[0] == whole


def test_results_file(cfg, model, tmp_path, capsys):
    cfg.MODEL.EVENTFUL.R = 7
    returned = evaluate_once(cfg, model)
    results = read_strict(tmp_path / "out" / "inference" / "results.json")
    assert set(results) == EXPECTED_KEYS
    assert set(results["gflops_per_frame"]) == {"backbone", "total"}
    for part in results["gflops_per_frame"].values():
        assert set(part) == {"flush", "later", "mean", "by_category"}
    assert set(results["seconds_per_frame"]) == {"backbone", "total"}
    assert set(results["bbox"]) == {"AP", "AP50", "AP75", "APs", "APm", "APl", "AP-cat", "AP-dog"}
    assert (results["videos"], results["frames"], results["device"]) == (2, 8, "cpu")
    assert (results["policy"], results["attention"]) == ("top-r 7", cfg.MODEL.EVENTFUL.ATTENTION)
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert results["bbox"]["APl"] is None and math.isnan(returned["bbox"]["APl"])
    # Detectron2's EvalHook wants {task: {metric: float}}.
    assert all(isinstance(value, float) for task in returned.values() for value in task.values())
    assert "| AP50 " in capsys.readouterr().out


def test_disabled_model_is_reported_as_dense(cfg, model, tmp_path):
    model.enabled = False
    evaluate_once(cfg, model)
    results = read_strict(tmp_path / "out" / "inference" / "results.json")
    assert (results["policy"], results["attention"]) == ("dense", "dense")


def test_budgets(cfg, model, tmp_path, capsys):
    returned = evaluate_budgets(cfg, model, ["dense", 20, "5"])
    folder = tmp_path / "out" / "inference"
    combined = read_strict(folder / "budgets.json")
    assert list(returned.values()) == [combined]
    assert [r["policy"] for r in combined] == ["dense", "top-r 20", "top-r 5"]
    assert combined == [read_strict(folder / b / "results.json") for b in ("dense", "20", "5")]
    later = [r["gflops_per_frame"]["total"]["later"] for r in combined]
    assert later == [10 / 1e9, 30 / 1e9, 15 / 1e9]
    table = (folder / "budgets.md").read_text()
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["dense", "top-r 20", "top-r 5"]
    assert table in capsys.readouterr().out


def test_budgets_leave_the_model_as_configured(cfg, model):
    cfg.MODEL.EVENTFUL.ENABLED, cfg.MODEL.EVENTFUL.R = True, 33
    evaluate_budgets(cfg, model, ["5", "dense"])
    assert model.enabled and str(model.policy) == "top-r 33" and model._last is None


def test_each_budget_starts_without_memory(cfg, model):
    evaluate_budgets(cfg, model, ["5", "7"])
    assert model.resets >= 2 and len(model.seen) == 16


@pytest.mark.parametrize("budgets", [["5", "fast"], ["-1"], [-1], ["1.5"], [""], []])
def test_bad_budgets(budgets):
    with pytest.raises(EvaluationError, match="budget"):
        parse_budgets(budgets)


def test_repeated_budgets_run_once():
    assert list(parse_budgets(["007", "7"])) == ["7"]
    assert list(parse_budgets(["dense", 8, "8", "dense"])) == ["dense", "8"]


def test_several_data_sets_have_folders_of_their_own(cfg, model, write_dataset, tmp_path):
    second, _ = write_dataset(make_document({4: 2}), "second")
    cfg.DATASETS.TEST = (*cfg.DATASETS.TEST, second)
    returned = evaluate_once(cfg, model)
    assert set(returned) == set(cfg.DATASETS.TEST)
    files = sorted((tmp_path / "out" / "inference").rglob("results.json"))
    assert sorted(read_strict(file)["frames"] for file in files) == [2, 8]
    assert len({file.parent for file in files}) == 2


def test_no_data_set(cfg, model):
    cfg.DATASETS.TEST = ()
    with pytest.raises(EvaluationError, match="DATASETS.TEST is empty"):
        evaluate_once(cfg, model)


@pytest.mark.parametrize("classes", [1, 3])
def test_other_number_of_classes_is_found_before_any_work(cfg, model, classes):
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = classes
    for evaluate in (lambda: evaluate_once(cfg, model), lambda: evaluate_budgets(cfg, model, ["dense"])):
        with pytest.raises(DataError, match=f"has 2 classes, but the model {classes}: set MODEL.ROI_HEADS.NUM_CLASSES"):
            evaluate()
    assert model.seen == []


@pytest.mark.parametrize("crowds", [True, False])
def test_nothing_to_evaluate_against_is_found_before_any_work(cfg, model, write_dataset, crowds):
    document = make_document({1: 2})
    document["annotations"] = [{**box, "iscrowd": 1} for box in document["annotations"]] if crowds else []
    cfg.DATASETS.TEST = (write_dataset(document, "nothing")[0],)
    with pytest.raises(EvaluationError, match="has no annotations"):
        evaluate_once(cfg, model)
    assert model.seen == []


def test_unwritable_output_is_found_before_any_work(cfg, model, tmp_path):
    (tmp_path / "file").write_text("")
    cfg.OUTPUT_DIR = str(tmp_path / "file" / "out")
    for evaluate in (lambda: evaluate_once(cfg, model), lambda: evaluate_budgets(cfg, model, ["dense"])):
        with pytest.raises(EvaluationError, match="OUTPUT_DIR: cannot write to"):
            evaluate()
    assert model.seen == []


def test_broken_video_ends_the_run_and_leaves_no_results(cfg, dataset, model, tmp_path):
    DatasetCatalog.get(dataset[0])
    (tmp_path / "videos" / "2.avi").write_bytes(b"RIFF")
    with pytest.raises(VideoReadError, match="2.avi"):
        evaluate_once(cfg, model)
    assert not list((tmp_path / "out").rglob("*.json"))


def test_interruption_leaves_finished_budgets_and_nothing_half_written(cfg, tmp_path):
    class Interrupted(OracleDetector):
        def detect(self, frame):
            if self.enabled and frame["frame_id"] == 4:
                raise KeyboardInterrupt
            return super().detect(frame)

    with pytest.raises(KeyboardInterrupt):
        evaluate_budgets(cfg, Interrupted(), ["dense", "5"])
    folder = tmp_path / "out" / "inference"
    assert [r["policy"] for r in read_strict(folder / "budgets.json")] == ["dense"]
    assert not list((folder / "5").iterdir()) if (folder / "5").exists() else True
    assert not list(folder.rglob("*.tmp"))


def test_two_processes_together_equal_one(cfg, monkeypatch, tmp_path):
    """Play two processes one after the other: what the second sends is there when the first gathers."""

    def evaluate(folder: str) -> dict:
        cfg.OUTPUT_DIR = str(tmp_path / folder)
        evaluate_once(cfg, OracleDetector(shift=1.0))
        file = tmp_path / folder / "inference" / "results.json"
        return {**read_strict(file), "seconds_per_frame": None} if file.exists() else {}

    alone = evaluate("alone")
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    sent, received = [], iter(())

    def gather(data, dst=0):
        if comm.get_rank() == 1:
            sent.append(data)
            return []
        return [data, next(received)]

    monkeypatch.setattr(comm, "gather", gather)
    monkeypatch.setattr(comm, "get_rank", lambda: 1)
    assert evaluate("together") == {}
    assert [len(part) if isinstance(part, dict) else part.num_frames for part in sent] == [3, 3]
    received = iter(sent)
    monkeypatch.setattr(comm, "get_rank", lambda: 0)
    assert evaluate("together") == alone and alone["frames"] == 8


def test_batches_of_several_frames_are_refused(model):
    with pytest.raises(ValueError, match="one at a time, but the loader gave 2"):
        next(run_frames(model, [[{}, {}]]))


def test_strict_json(tmp_path):
    value = {"a": float("nan"), "b": [np.float32(1.5), (float("inf"), 2)], 3: np.int64(4), "c": None}
    assert to_strict(value) == {"a": None, "b": [1.5, [None, 2]], "3": 4, "c": None}
    with pytest.raises(ValueError):
        write_json(str(tmp_path / "a.json"), float("nan"))
    assert not list(tmp_path.iterdir())


def test_table():
    assert format_table(("a", "bb"), [("x", "1")]) == "| a | bb |\n| - | -: |\n| x |  1 |"


def test_undefined_values_are_dashes():
    gflops = {"flush": 1.0, "later": None, "mean": 1.0}
    result = {
        "policy": "dense",
        "bbox": {"AP": 1.0, "AP50": None, "AP75": 2.0},
        "gflops_per_frame": {"backbone": gflops, "total": gflops},
        "seconds_per_frame": {"backbone": 0.1, "total": 0.2},
    }
    cells = [cell.strip() for cell in format_budgets([result]).splitlines()[2].split("|")[1:-1]]
    assert cells == ["dense", "1.00", "-", "2.00", "1.000", "-", "1.000", "1.000", "0.1000", "0.2000"]
