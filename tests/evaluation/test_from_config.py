"""Evaluations from a configuration: what they write, and what they refuse."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from eventful_vit import Calibration
from eventful_vitdet.errors import ConfigError, DataError, EvaluationError, VideoReadError
from eventful_vitdet.evaluation import evaluate_budgets, evaluate_once
from eventful_vitdet.evaluation.targets import result_folders
from eventful_vitdet.policy_files import write_policy_file

from .conftest import OracleDetector, make_document, read_strict

EXPECTED_KEYS = {
    "bbox",
    "gflops_per_frame",
    "seconds_per_frame",
    "seconds_by_machine",
    "videos",
    "frames",
    "motion",
    "size",
    "stability",
    "intervals",
    "skipped",
    "threads_per_process",
    "streams_per_batch",
    "policy",
    "attention",
    "detectron2",
    "torch",
    "device",
}


def test_results_file(cfg, model, tmp_path, capsys):
    cfg.MODEL.EVENTFUL.R = 7
    returned = evaluate_once(cfg, model)
    results = read_strict(tmp_path / "out" / "inference" / "results.json")
    assert set(results) == EXPECTED_KEYS
    assert set(results["gflops_per_frame"]) == {"backbone", "total"}
    for part in results["gflops_per_frame"].values():
        assert set(part) == {"flush", "later", "mean", "by_category"}
    assert set(results["seconds_per_frame"]) == {"backbone", "total"}
    coco = {"AP", "AP25", "AP50", "AP75", "APs", "APm", "APl", "AP-cat", "AP-dog"}
    assert set(results["bbox"]) == coco | {"VID-AP50", "VID-AP50-cat", "VID-AP50-dog"}
    assert results["skipped"] == [] and results["streams_per_batch"] == 1
    assert (results["videos"], results["frames"], results["device"]) == (2, 8, "cpu")
    assert (results["policy"], results["attention"]) == ("top-r 7", cfg.MODEL.EVENTFUL.ATTENTION)
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert results["bbox"]["APl"] is None and math.isnan(returned["bbox"]["APl"])
    # Detectron2's EvalHook wants {task: {metric: float}}.
    assert all(isinstance(value, float) for task in returned.values() for value in task.values())
    assert "| AP50 " in (tmp_path / "out" / "inference" / "results.md").read_text()
    assert "top-r 7" in capsys.readouterr().out


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
    assert "agreement" not in combined[0]
    # The budgets find the very boxes of the dense model; those below the score of 0.5 are no objects of it.
    assert combined[1]["agreement"]["recall"] == combined[1]["agreement"]["IoU"] == 100
    assert combined == [read_strict(folder / b / "results.json") for b in ("dense", "20", "5")]
    later = [r["gflops_per_frame"]["total"]["later"] for r in combined]
    assert later == [10 / 1e9, 30 / 1e9, 15 / 1e9]
    table = (folder / "budgets.md").read_text()
    by_budget, by_range = table.split("\n\n")
    assert [line.split("|")[1].strip() for line in by_budget.splitlines()[2:]] == ["dense", "top-r 20", "top-r 5"]
    names = [line.split("|")[1].strip() for line in by_range.splitlines()[2:]]
    assert names[0] == "size: small" and "frames since flush: 4-7" in names  # without tracks, there is no motion
    shown = capsys.readouterr().out
    assert by_budget in shown and by_range not in shown


def test_budgets_leave_the_model_as_configured(cfg, model):
    cfg.MODEL.EVENTFUL.ENABLED, cfg.MODEL.EVENTFUL.R = True, 33
    evaluate_budgets(cfg, model, ["5", "dense"])
    assert model.enabled and str(model.policy) == "top-r 33" and not model._last


def test_each_budget_starts_without_memory(cfg, model):
    evaluate_budgets(cfg, model, ["5", "7"])
    assert model.resets >= 2 and len(model.seen) == 16


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


@pytest.fixture
def foreign(dataset):
    """Registers the frames of the data set again, as other code does: without what Detectron2 does not know of."""
    names = []

    def register(*missing: str, **metadata) -> str:
        frames = [{k: v for k, v in frame.items() if k not in missing} for frame in DatasetCatalog.get(dataset[0])]
        names.append(f"foreign_{len(names)}")
        DatasetCatalog.register(names[-1], lambda: frames)
        MetadataCatalog.get(names[-1]).set(**metadata)
        return names[-1]

    yield register
    for name in names:
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name)


def test_a_data_set_that_detectron2_registered(cfg, model, foreign, tmp_path):
    expected = evaluate_once(cfg, model)
    cfg.DATASETS.TEST = (foreign("frame_step", "is_video_file", thing_classes=["cat", "dog"]),)
    cfg.OUTPUT_DIR = str(tmp_path / "foreign")
    returned = evaluate_once(cfg, model)
    assert returned["bbox"] == pytest.approx(expected["bbox"], nan_ok=True)
    results = read_strict(tmp_path / "foreign" / "inference" / "results.json")
    assert (results["videos"], results["frames"]) == (2, 8)


class DetectorOfStills(OracleDetector):
    def detect(self, frame):
        video, number = divmod(frame["image_id"], 100)
        return super().detect({**frame, "video_id": video, "frame_id": number})


def test_a_data_set_of_stills(cfg, foreign, tmp_path):
    """As register_coco_instances gives them: every image is a video of one frame."""
    name = foreign("frame_step", "is_video_file", "video_id", "frame_id", thing_classes=["cat", "dog"])
    for entry in DatasetCatalog.get(name):
        entry["file_name"] = str(tmp_path / f"{entry['image_id']}.png")
        cv2.imwrite(entry["file_name"], np.zeros((entry["height"], entry["width"], 3), np.uint8))
    cfg.DATASETS.TEST = (name,)
    assert evaluate_once(cfg, DetectorOfStills())["bbox"]["AP"] == pytest.approx(100)
    results = read_strict(tmp_path / "out" / "inference" / "results.json")
    assert (results["videos"], results["frames"]) == (8, 8)
    assert len(list((tmp_path / "out" / "inference" / "videos").glob("*.npz"))) == 8


def test_a_data_set_without_class_names(cfg, model, foreign):
    cfg.DATASETS.TEST = (foreign("frame_step"),)
    with pytest.raises(EvaluationError, match="'foreign_0' names no classes: set thing_classes"):
        evaluate_once(cfg, model)


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


def test_folders_are_told_without_being_made(cfg, tmp_path):
    folder = tmp_path / "out" / "inference"
    cfg.DATASETS.TEST = ("one: day",)
    assert result_folders(cfg) == {"one: day": str(folder)}
    cfg.DATASETS.TEST = ("one: day", "two")
    assert result_folders(cfg) == {"one: day": str(folder / "one_day"), "two": str(folder / "two")}
    assert not folder.exists()


def test_two_data_sets_never_share_a_folder(cfg):
    cfg.DATASETS.TEST = ("coco_vid:/data/vid/val.json", "two", "two", "coco_vid:/data/vid_val.json")
    with pytest.raises(EvaluationError, match="'coco_vid:/data/vid/val.json' and 'coco_vid:/data/vid_val.json' would"):
        result_folders(cfg)
    cfg.DATASETS.TEST = cfg.DATASETS.TEST[:3]
    assert len(result_folders(cfg)) == 2


def test_broken_video_ends_the_run_and_leaves_no_results(cfg, dataset, model, tmp_path):
    DatasetCatalog.get(dataset[0])
    (tmp_path / "videos" / "2.avi").write_bytes(b"RIFF")
    with pytest.raises(VideoReadError, match="2.avi"):
        evaluate_once(cfg, model)
    assert not list((tmp_path / "out").rglob("results*.json"))


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
    assert {path.name for path in (folder / "5").iterdir()} <= {".lock", "fingerprint.json", "videos"}
    assert not list(folder.rglob("*.tmp"))


def test_the_dense_model_comes_first_and_the_table_keeps_the_order(cfg, model, tmp_path):
    evaluate_budgets(cfg, model, ["5", "dense"])
    combined = read_strict(tmp_path / "out" / "inference" / "budgets.json")
    assert [result["policy"] for result in combined] == ["top-r 5", "dense"]
    assert combined[0]["agreement"]["VID-AP50"] > 0


@pytest.mark.parametrize(
    "key, value",
    [
        ("VID_SCORE_FLOOR", -0.1),
        ("VID_DETECTIONS_PER_IMAGE", 0),
        ("STREAMS_PER_BATCH", 0),
        ("THREADS_PER_PROCESS", -1),
        ("ON_BAD_VIDEO", "ignore"),
    ],
)
def test_settings_out_of_range_are_named_before_any_work(cfg, model, key, value):
    cfg.TEST[key] = value
    with pytest.raises(ValueError, match=f"TEST.{key}.* must be"):
        evaluate_once(cfg, model)
    assert model.seen == []


def test_videos_side_by_side_do_not_share_a_budget(cfg, model, tmp_path):
    file = tmp_path / "shared.json"
    found = Calibration({"blocks.0.mlp": 3}, 64, 1000, 0.5, 0.1, 4, 0.2, {"blocks.0.mlp": 1.5})
    write_policy_file(str(file), found)
    cfg.MODEL.EVENTFUL.POLICY, cfg.MODEL.EVENTFUL.POLICY_FILE = "calibrated", str(file)
    cfg.TEST.STREAMS_PER_BATCH = 2
    with pytest.raises(ConfigError, match="STREAMS_PER_BATCH = 2: videos of a batch would share the budget of .* to 1"):
        evaluate_once(cfg, model)
    assert model.seen == []
    model.enabled = False
    evaluate_once(cfg, model)


def test_agreement_needs_no_annotations(cfg, model, write_dataset, tmp_path, caplog):
    evaluate_budgets(cfg, model, ["dense", "5"])
    labelled = read_strict(tmp_path / "out" / "inference" / "budgets.json")
    document = {**make_document({1: 5, 2: 3}), "annotations": []}
    cfg.DATASETS.TEST = (write_dataset(document, "unlabelled")[0],)
    cfg.OUTPUT_DIR = str(tmp_path / "unlabelled_out")
    evaluate_budgets(cfg, model, ["dense", "5"])
    results = read_strict(tmp_path / "unlabelled_out" / "inference" / "budgets.json")
    assert results[1]["agreement"] == labelled[1]["agreement"] and results[1]["agreement"]["VID-AP50"] == 100
    for group in ("bbox", "motion", "size", "stability"):
        assert results[0][group] == dict.fromkeys(labelled[0][group])
    assert "has no annotations: only costs and agreement" in caplog.text
    with pytest.raises(EvaluationError, match="no annotations .* --budgets dense"):
        evaluate_budgets(cfg, model, ["5"])


def test_intervals_over_videos(cfg, write_dataset, tmp_path):
    class Careless(OracleDetector):
        """Misses all of the third video when it is not dense."""

        def detect(self, frame):
            instances = super().detect(frame)
            return instances[[]] if self.enabled and frame["video_id"] == 3 else instances

    cfg.DATASETS.TEST = (write_dataset(make_document(dict.fromkeys(range(1, 7), 3)), "six")[0],)
    evaluate_budgets(cfg, Careless(), ["dense", "5"])
    dense, budget = read_strict(tmp_path / "out" / "inference" / "budgets.json")
    # Every frame of a video finds all or nothing, so a draw with the third video n times loses n sixths or so.
    assert dense["intervals"] == {"VID-AP50-low": 100, "VID-AP50-high": 100}
    found = budget["intervals"]
    assert found["VID-AP50-low"] < found["VID-AP50-high"] == 100
    assert found["VID-AP50-change-low"] == pytest.approx(found["VID-AP50-low"] - 100)
    assert (found["VID-AP50-change-high"], found["agreement-high"]) == (0, 100)
    assert found["agreement-low"] == pytest.approx(found["VID-AP50-low"])
    assert "| 95 % interval over videos |" in (tmp_path / "out" / "inference" / "budgets.md").read_text()
