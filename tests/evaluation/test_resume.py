"""An evaluation that was ended goes on with what is missing, and never mixes what does not belong together."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
from pathlib import Path

import pytest
import torch
from eventful_vitdet import files
from eventful_vitdet.errors import EvaluationError
from eventful_vitdet.evaluation import collect, evaluate_budgets, evaluate_once, fingerprint, read_record, record_paths
from eventful_vitdet.evaluation.fingerprint import hash_frames, hash_weights

from .conftest import OracleDetector, make_document, read_strict
from .gloo import run_forked
from .test_several_processes import assert_same_videos, results_of

LENGTHS = {1: 5, 2: 3, 3: 4}


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "out" / "inference"


class Interrupted(OracleDetector):
    """Ends at one frame."""

    def __init__(self, video: int = 2, frame: int = 1, error: type[BaseException] = KeyboardInterrupt) -> None:
        super().__init__()
        self.end, self.error = (video, frame), error

    def detect(self, frame):
        if (frame["video_id"], frame["frame_id"]) == self.end:
            raise self.error
        return super().detect(frame)


def interrupt(cfg, **where) -> None:
    with pytest.raises(KeyboardInterrupt):
        evaluate_once(cfg, Interrupted(**where))


def test_finished_videos_are_not_run_again(cfg, model, folder, caplog):
    interrupt(cfg)
    assert [Path(path).name for path in record_paths(str(folder))] == ["1.npz"]
    assert "the same command goes on" in caplog.text and not (folder / "results.json").exists()
    before = read_record(record_paths(str(folder))[0])
    evaluate_once(cfg, model)
    assert model.seen == [(2, 0), (2, 1), (2, 2)]
    after = read_record(record_paths(str(folder))[0])
    assert (after.total_seconds == before.total_seconds).all()  # the times, too, are from the record
    assert results_of(folder)["frames"] == 8 and results_of(folder)["bbox"]["AP"] == pytest.approx(100)


def test_a_complete_evaluation_only_makes_its_results_again(cfg, model, folder):
    evaluate_once(cfg, OracleDetector())
    first = read_strict(folder / "results.json")
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.5  # chooses among stored detections, so nothing has to run
    evaluate_once(cfg, model)
    assert model.seen == []
    second = read_strict(folder / "results.json")
    assert second == first
    assert len(read_strict(folder / "coco_instances_results.json")) == 8


def test_restart_runs_everything_again(cfg, model, folder):
    interrupt(cfg)
    evaluate_once(cfg, model, restart=True)
    assert len(model.seen) == 8


def test_a_sweep_goes_on_in_the_middle(cfg, model, folder):
    def interrupted_sweep():
        evaluator = Interrupted()
        evaluator.detect = lambda frame: (
            OracleDetector.detect(evaluator, frame) if evaluator.policy is None or evaluator.policy.r != 7 else 1 / 0
        )
        evaluate_budgets(cfg, evaluator, ["dense", "5", "7"])

    with pytest.raises(ZeroDivisionError):
        interrupted_sweep()
    evaluate_budgets(cfg, model, ["dense", "5", "7"])
    assert len(model.seen) == 8  # those of budget 7
    assert [result["policy"] for result in read_strict(folder / "budgets.json")] == ["dense", "top-r 5", "top-r 7"]


@pytest.mark.parametrize(
    "key, value",
    [
        ("INPUT.MIN_SIZE_TEST", 40),
        ("TEST.VID_SCORE_FLOOR", 0.01),
        ("MODEL.VIT.WINDOW_SIZE", 7),
        ("MODEL.EVENTFUL.ATTENTION", "full"),
    ],
)
def test_other_settings_do_not_touch_an_incomplete_evaluation(cfg, model, folder, key, value):
    interrupt(cfg)
    node, _, leaf = key.rpartition(".")
    part = cfg
    for name in node.split("."):
        part = part[name]
    before, part[leaf] = part[leaf], value
    with pytest.raises(EvaluationError) as caught:
        evaluate_once(cfg, model)
    message = str(caught.value)
    assert f"{key} was {before}, now it is {value}" in message and "--restart" in message and str(folder) in message
    assert model.seen == [] and len(record_paths(str(folder))) == 1


def test_settings_that_do_not_matter_may_change(cfg, model):
    interrupt(cfg)
    cfg.SOLVER.BASE_LR = 1.0
    cfg.TEST.ON_BAD_VIDEO = "skip"
    cfg.DATALOADER.PREFETCH_FRAMES = 2
    cfg.MODEL.WEIGHTS = "copy.pth"  # where weights come from does not matter, only what they are
    evaluate_once(cfg, model)
    assert len(model.seen) == 3


def test_other_weights_policies_and_thread_counts_are_named(cfg):
    interrupt(cfg)
    with pytest.raises(EvaluationError, match="weights was [0-9a-f]{32}, now it is [0-9a-f]{32}"):
        evaluate_once(cfg, OracleDetector(shift=1.0))
    cfg.MODEL.EVENTFUL.R = 9
    with pytest.raises(EvaluationError, match="policy was top-r 256, now it is top-r 9"):
        evaluate_once(cfg, OracleDetector())
    cfg.MODEL.EVENTFUL.R = 256
    cfg.TEST.THREADS_PER_PROCESS = torch.get_num_threads() + 1
    with pytest.raises(EvaluationError, match=f"threads was {torch.get_num_threads()}, now it is"):
        evaluate_once(cfg, OracleDetector())


def test_a_changed_annotation_is_another_data_set(cfg, model, write_dataset):
    interrupt(cfg)
    document = make_document({1: 5, 2: 3})
    document["annotations"][0]["bbox"][2] += 1
    write_dataset(document)
    with pytest.raises(EvaluationError, match="data set was"):
        evaluate_once(cfg, model)


def test_a_complete_evaluation_is_replaced_by_another(cfg, model, folder, caplog):
    evaluate_once(cfg, OracleDetector())
    cfg.INPUT.MIN_SIZE_TEST = 40
    evaluate_once(cfg, model)
    assert len(model.seen) == 8
    assert "results of another evaluation, which are replaced: INPUT.MIN_SIZE_TEST was 0, now it is 40" in caplog.text


def full_disk(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_at_the_results_loses_no_video(cfg, model, folder, monkeypatch):
    """Nor are these videos those of a complete evaluation, which other settings would replace."""
    with monkeypatch.context() as patch:
        patch.setattr(collect, "write_vid_submission", full_disk)
        with pytest.raises(EvaluationError, match=r"No space left on device\); all videos are evaluated and safe"):
            evaluate_once(cfg, OracleDetector())
    cfg.INPUT.MIN_SIZE_TEST = 40
    with pytest.raises(EvaluationError, match="does not continue: INPUT.MIN_SIZE_TEST"):
        evaluate_once(cfg, model)
    cfg.INPUT.MIN_SIZE_TEST = 0
    evaluate_once(cfg, model)
    assert model.seen == [] and results_of(folder)["frames"] == 8


def test_results_made_with_other_kernels_are_not_mixed(cfg, model, monkeypatch):
    interrupt(cfg)
    monkeypatch.setattr(fingerprint, "describe_kernels", lambda: "kernels-0")
    with pytest.raises(EvaluationError, match="kernels was .*, now it is kernels-0"):
        evaluate_once(cfg, model)


def test_records_without_a_fingerprint_are_not_trusted(cfg, model, folder):
    interrupt(cfg)
    for content in (None, "{", "[]", "{}"):
        (folder / "fingerprint.json").unlink()
        if content is not None:
            (folder / "fingerprint.json").write_text(content)
        with pytest.raises(EvaluationError, match="fingerprint.json: cannot be read .* --restart"):
            evaluate_once(cfg, model)
        (folder / "fingerprint.json").write_text("")
    evaluate_once(cfg, model, restart=True)
    assert len(model.seen) == 8


def test_a_damaged_record_is_evaluated_again(cfg, model, folder):
    interrupt(cfg)
    (path,) = record_paths(str(folder))
    os.truncate(path, 100)  # as a power failure may leave it
    evaluate_once(cfg, model)
    assert len(model.seen) == 8 and len(read_record(path)) == 5


def test_hashes():
    frames = [{"file_name": "/a/b.mp4", "image_id": 1, "annotations": [{"bbox": [1, 2, 3, 4]}]}]
    moved = [{**frames[0], "file_name": "/c/b.mp4"}]
    assert hash_frames(frames, ["cat"]) == hash_frames(moved, ["cat"]) != hash_frames(frames, ["dog"])
    assert hash_frames(frames * 2, ["cat"]) != hash_frames(frames, ["cat"])
    model = torch.nn.Linear(2, 3)
    before = hash_weights(model)
    assert hash_weights(model) == before == hash_weights(model.double().float())
    with torch.no_grad():
        model.bias[1] += 1e-6
    assert hash_weights(model) != before != hash_weights(model.half())


class Killed:
    """Ends this process by SIGKILL when a function is called for the n-th time; n = 0 is never."""

    def __init__(self, function, calls: int) -> None:
        self.function, self.calls = function, calls

    def __call__(self, *args, **kwargs):
        self.calls -= 1
        if self.calls == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.function(*args, **kwargs)


def evaluate_until_killed(cfg, frame: int, fsync: int, rename: int) -> None:
    """Evaluate, and be killed at a frame, while a file is half written, or before one gets its name."""
    model = OracleDetector(shift=1.0)
    model.detect = Killed(model.detect, frame)
    os.fsync = Killed(os.fsync, fsync)
    files.os.replace = Killed(os.replace, rename)
    evaluate_once(cfg, model)


@pytest.fixture
def three_videos(cfg, write_dataset):
    cfg.TEST.THREADS_PER_PROCESS = 1  # as in the forked processes
    cfg.DATASETS.TEST = (write_dataset(make_document(LENGTHS), "three")[0],)
    return cfg


def run_to_the_end(cfg, function, moments, processes: int = 1) -> int:
    """Run the same evaluation again and again, killed at these moments; returns how many times it was killed."""
    killed = 0
    for moment in moments:
        codes = run_forked(processes, function, cfg, *moment)
        if set(codes) == {0}:
            break
        assert -signal.SIGKILL in codes
        killed += 1
    assert run_forked(processes, function, cfg, 0, 0, 0) == [0] * processes
    return killed


def test_killed_at_any_moment_and_continued(three_videos, tmp_path):
    cfg = three_videos
    cfg.OUTPUT_DIR = str(tmp_path / "whole")
    evaluate_once(cfg, OracleDetector(shift=1.0))
    cfg.OUTPUT_DIR = str(tmp_path / "killed")
    # In the second frame of all; half way through the first record; before it gets its name; in the middle of a video;
    # as the second record is written; ...; before each file of results.
    moments = [(2, 0, 0), (0, 1, 0), (0, 0, 2), (7, 0, 0), (0, 2, 0), (2, 0, 0)]
    moments += [(0, 0, rename) for rename in range(1, 9)]
    killed = run_to_the_end(cfg, evaluate_until_killed, moments)
    assert killed >= 10
    assert_same_videos(tmp_path / "whole" / "inference", tmp_path / "killed" / "inference")
    whole, continued = tmp_path / "whole" / "inference", tmp_path / "killed" / "inference"
    assert results_of(whole) == results_of(continued)
    for name in ("coco_instances_results.json", "vid_submission.txt"):
        assert (whole / name).read_bytes() == (continued / name).read_bytes()
    assert not list((continued / "videos").glob(".*"))


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_at_random_moments(three_videos, tmp_path, processes):
    cfg, rng = three_videos, random.Random(processes)
    cfg.OUTPUT_DIR = str(tmp_path / "whole")
    evaluate_once(cfg, OracleDetector(shift=1.0))
    for attempt in range(10):
        cfg.OUTPUT_DIR = str(tmp_path / f"killed{attempt}")
        moments = [[rng.choice((0, 0, rng.randint(1, 6))) for _ in range(3)] for _ in range(12)]
        run_to_the_end(cfg, evaluate_until_killed, moments, processes)
        folders = tmp_path / "whole" / "inference", Path(cfg.OUTPUT_DIR) / "inference"
        assert_same_videos(*folders)
        assert results_of(folders[0]) == results_of(folders[1])
        assert json.loads((folders[1] / "fingerprint.json").read_text())["complete"]
