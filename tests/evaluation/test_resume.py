"""An evaluation that was ended goes on with what is missing, and never mixes what does not belong together."""

from __future__ import annotations

import errno
import functools
import itertools
import json
import os
import random
import shutil
import signal
from pathlib import Path

import pytest
import torch
from eventful_vitdet import files
from eventful_vitdet.data import register_test_json
from eventful_vitdet.errors import EvaluationError
from eventful_vitdet.evaluation import (
    collect,
    evaluate_budgets,
    evaluate_once,
    fingerprint,
    from_config,
    read_record,
    record_paths,
)
from eventful_vitdet.evaluation.fingerprint import hash_frames, hash_weights
from eventful_vitdet.evaluation.replacement import finish_replacement

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
    assert "Rerun the same command to resume" in caplog.text and not (folder / "results.json").exists()
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


def other_settings(cfg) -> None:
    cfg.INPUT.MIN_SIZE_TEST = 40


def content(folder: Path) -> dict[str, bytes]:
    """All files of an evaluation, without the lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_other_settings_do_not_touch_a_complete_evaluation(cfg, model, folder):
    evaluate_once(cfg, OracleDetector())
    before = content(folder)
    other_settings(cfg)
    with pytest.raises(EvaluationError) as caught:
        evaluate_once(cfg, model)
    assert str(caught.value) == (
        f"{folder} holds the results of another evaluation (2 videos): INPUT.MIN_SIZE_TEST was 0, now it is 40. Start "
        "over with --restart, or choose another OUTPUT_DIR"
    )
    assert model.seen == [] and content(folder) == before


def test_restart_replaces_a_complete_evaluation(cfg, model, folder):
    evaluate_once(cfg, OracleDetector())
    other_settings(cfg)
    evaluate_once(cfg, model, restart=True)
    assert len(model.seen) == 8
    assert {name for name in content(folder) if "replac" in name} == set()
    assert read_strict(folder / "fingerprint.json")["fingerprint"]["INPUT.MIN_SIZE_TEST"] == 40
    evaluate_once(cfg, again := OracleDetector())
    assert again.seen == []


def test_a_complete_evaluation_stays_until_its_replacement_is_complete(cfg, model, folder, caplog):
    evaluate_once(cfg, OracleDetector())
    before = content(folder)
    settings = cfg.clone()
    other_settings(cfg)
    with pytest.raises(KeyboardInterrupt):
        evaluate_once(cfg, Interrupted(), restart=True)
    assert {name: data for name, data in content(folder).items() if not name.startswith("replacement/")} == before
    assert f"finished videos are safe in {folder}/replacement. Rerun" in caplog.text
    # The settings of before still find their results, ...
    evaluate_once(settings, model)
    assert model.seen == [] and len(record_paths(str(folder))) == 2
    # ... and the interrupted evaluation resumes, without --restart, and takes their place.
    evaluate_once(cfg, model)
    assert model.seen == [(2, 0), (2, 1), (2, 2)]
    assert not (folder / "replacement").exists()
    with pytest.raises(EvaluationError, match="INPUT.MIN_SIZE_TEST was 40, now it is 0"):
        evaluate_once(settings, model)


def test_restart_drops_an_unfinished_replacement(cfg, model, folder):
    evaluate_once(cfg, OracleDetector())
    with pytest.raises(KeyboardInterrupt):
        evaluate_once(cfg, Interrupted(), restart=True)
    assert len(record_paths(str(folder / "replacement"))) == 1
    evaluate_once(cfg, model, restart=True)
    assert len(model.seen) == 8


def test_a_third_evaluation_is_told_of_the_replacement(cfg, model, folder):
    evaluate_once(cfg, OracleDetector())
    other_settings(cfg)
    with pytest.raises(KeyboardInterrupt):
        evaluate_once(cfg, Interrupted(), restart=True)
    cfg.INPUT.MIN_SIZE_TEST = 50
    with pytest.raises(EvaluationError, match="replacement holds 1 finished videos of .* was 40, now it is 50"):
        evaluate_once(cfg, model)


def test_a_sweep_is_replaced_as_a_whole(cfg, folder):
    evaluate_budgets(cfg, OracleDetector(), ["dense", "5", "7"])
    before = content(folder)

    class Fails(OracleDetector):
        def detect(self, frame):
            return super().detect(frame) if self.policy is None or self.policy.r != 5 else 1 / 0

    other_settings(cfg)
    with pytest.raises(ZeroDivisionError):
        evaluate_budgets(cfg, Fails(), ["dense", "5"], restart=True)
    now = content(folder)
    assert {name: data for name, data in now.items() if "replacement/" not in name} == before
    assert "dense/replacement/results.json" in now
    evaluate_budgets(cfg, model := OracleDetector(), ["dense", "5"])
    assert len(model.seen) == 8  # those of budget 5
    assert [result["policy"] for result in read_strict(folder / "budgets.json")] == ["dense", "top-r 5"]
    assert not [name for name in content(folder) if "replac" in name]


def test_a_table_of_more_budgets_stays_until_there_are_as_many(cfg, folder):
    evaluate_budgets(cfg, OracleDetector(), ["dense", "5"])
    before = (folder / "budgets.json").read_bytes()
    (folder / "5" / "videos" / "2.npz").unlink()
    with pytest.raises(KeyboardInterrupt):
        evaluate_budgets(cfg, Interrupted(), ["dense", "5"])
    assert (folder / "budgets.json").read_bytes() == before


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
    monkeypatch.setattr(fingerprint.cpu, "describe_kernels", lambda: "kernels-0")
    with pytest.raises(EvaluationError, match="kernels was .*, now it is kernels-0"):
        evaluate_once(cfg, model)


def test_records_without_a_fingerprint_are_not_trusted(cfg, model, folder):
    interrupt(cfg)
    for content in (None, "{", "[]", "{}", '{"complete": true, "fingerprint": 3}', '{"complete": true}'):
        (folder / "fingerprint.json").unlink()
        if content is not None:
            (folder / "fingerprint.json").write_text(content)
        with pytest.raises(EvaluationError, match="fingerprint.json: cannot be read .* --restart"):
            evaluate_once(cfg, model)
        (folder / "fingerprint.json").write_text("")
    evaluate_once(cfg, model, restart=True)
    assert len(model.seen) == 8


@pytest.mark.parametrize("damaged", ["replacement", "."])
def test_restart_gets_over_a_damaged_fingerprint(cfg, model, folder, damaged):
    evaluate_once(cfg, OracleDetector())
    with pytest.raises(KeyboardInterrupt):
        evaluate_once(cfg, Interrupted(), restart=True)
    (folder / damaged / "fingerprint.json").write_text("")
    evaluate_once(cfg, model, restart=True)
    assert len(model.seen) == 8 and read_strict(folder / "fingerprint.json")["complete"]


def test_a_damaged_record_is_evaluated_again(cfg, model, folder):
    interrupt(cfg)
    (path,) = record_paths(str(folder))
    os.truncate(path, 100)  # as a power failure may leave it
    evaluate_once(cfg, model)
    assert len(model.seen) == 8 and len(read_record(path)) == 5


def test_damage_is_found_when_an_evaluation_starts(cfg, model, folder, caplog):
    """Also in a record that nobody has to wait for, and in the part that says nothing of its frames."""
    evaluate_once(cfg, OracleDetector())
    path = folder / "videos" / "1.npz"
    data = bytearray(path.read_bytes())
    data[len(data) * 3 // 4] ^= 1
    path.write_bytes(data)
    evaluate_once(cfg, model)
    assert model.seen == [(1, frame) for frame in range(5)]
    assert "video 1 is evaluated again" in caplog.text and results_of(folder)["frames"] == 8


def test_a_video_whose_file_has_changed_is_evaluated_again(cfg, model, folder, tmp_path, caplog):
    evaluate_once(cfg, OracleDetector())
    path = tmp_path / "videos" / "2.avi"
    path.write_bytes(path.read_bytes() + bytes(16))
    evaluate_once(cfg, model)
    assert model.seen == [(2, frame) for frame in range(3)]
    assert "video 2 is evaluated again" in caplog.text and "files have changed" in caplog.text


def test_a_data_set_may_move(cfg, model, folder, write_dataset, tmp_path):
    evaluate_once(cfg, OracleDetector())
    (tmp_path / "elsewhere").mkdir()
    for name in ("videos", "set.json"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    cfg.DATASETS.TEST = (register_test_json(str(tmp_path / "elsewhere" / "set.json")),)
    evaluate_once(cfg, model)
    assert model.seen == []


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


def replace_until_killed(cfg, move: int) -> None:
    """Put a complete replacement in place, and be killed before one of the moves or deletions."""
    moves = Killed(lambda function, *args, **kwargs: function(*args, **kwargs), move)
    for name in ("rename", "replace", "rmdir", "unlink"):
        setattr(os, name, functools.partial(moves, getattr(os, name)))
    finish_replacement(str(Path(cfg.OUTPUT_DIR) / "inference"))


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


def test_killed_while_a_replacement_takes_its_place(three_videos, tmp_path):
    cfg = three_videos
    folder = Path(cfg.OUTPUT_DIR) / "inference"
    evaluate_once(cfg, OracleDetector())
    before = content(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(from_config, "put_in_place", lambda outcomes: None)
        evaluate_once(cfg, OracleDetector(shift=1.0), restart=True)
    ready = content(folder)
    new = {name.removeprefix("replacement/"): data for name, data in ready.items() if name.startswith("replacement/")}
    assert new.keys() == before.keys() and {**before, **ready} == ready
    shutil.copytree(folder, tmp_path / "ready")
    for move in itertools.count(1):
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "ready", folder)
        (code,) = run_forked(1, replace_until_killed, cfg, move)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        evaluate_once(cfg, model := OracleDetector(shift=1.0))
        assert model.seen == []
        assert {name: data for name, data in content(folder).items() if name.startswith("videos/")} == {
            name: data for name, data in new.items() if name.startswith("videos/")
        }
        assert results_of(folder)["frames"] == 12
    assert move > 10 and content(folder) == new


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
