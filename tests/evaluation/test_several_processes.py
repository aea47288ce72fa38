"""Videos shared out over processes, and run side by side: the same detections and counts as one by one."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.utils import comm
from eventful_vitdet.errors import EvaluationError
from eventful_vitdet.evaluation import evaluate_budgets, evaluate_once, process_barrier, read_record, record_paths
from eventful_vitdet.evaluation.evaluate import fixed_threads
from eventful_vitdet.evaluation.record_exchange import fetch_records
from eventful_vitdet.evaluation.store import write_record

from .conftest import OracleDetector, make_document, read_strict
from .gloo import run_forked
from .test_store import assert_same, make_record

LENGTHS = {1: 3, 2: 5, 3: 1, 4: 4, 5: 2}


def results_of(folder: Path) -> dict:
    """results.json without what a clock says."""
    return without_times(read_strict(folder / "results.json"))


def without_times(results: dict) -> dict:
    return {**results, "seconds_per_frame": None, "seconds_by_machine": None}


def assert_same_videos(one: Path, other: Path, atol: float | None = None) -> None:
    """Detections and counts of all records are equal, bit for bit unless `atol` pixels are allowed."""
    paths = record_paths(str(one))
    assert [Path(path).name for path in paths] == [Path(path).name for path in record_paths(str(other))]
    assert paths
    for path in paths:
        ours, theirs = read_record(path), read_record(str(other / "videos" / Path(path).name))
        np.testing.assert_array_equal(ours.image_ids, theirs.image_ids)
        np.testing.assert_array_equal(ours.flushed, theirs.flushed)
        np.testing.assert_array_equal(ours.macs, theirs.macs)
        np.testing.assert_array_equal(ours.detections.image_ids, theirs.detections.image_ids)
        if atol is None:
            np.testing.assert_array_equal(ours.detections.classes, theirs.detections.classes)
        for column in ("scores", "boxes"):
            a, b = getattr(ours.detections, column), getattr(theirs.detections, column)
            np.testing.assert_allclose(a, b, rtol=0, atol=atol or 0)


@pytest.fixture
def moving(write_dataset) -> str:
    return write_dataset(make_document(LENGTHS), "moving", moving=True)[0]


@pytest.fixture
def real(make_real, moving, tmp_path):
    """Evaluates a real model in some processes; returns the folder of the results."""

    def evaluate(folder: str, processes: int = 1, **overrides) -> Path:
        cfg, model = make_real(moving, **overrides)
        cfg.OUTPUT_DIR = str(tmp_path / folder)
        assert run_forked(processes, evaluate_once, cfg, model) == [0] * processes
        return tmp_path / folder / "inference"

    return evaluate


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_together_equal_one(real, processes):
    alone, together = real("alone"), real("together", processes)
    assert len(record_paths(str(alone))) == len(LENGTHS)
    assert sum(len(read_record(path).detections) for path in record_paths(str(alone))) > 100
    assert_same_videos(alone, together)
    assert results_of(alone) == results_of(together)
    for name in ("coco_instances_results.json", "vid_submission.txt"):
        assert (alone / name).read_bytes() == (together / name).read_bytes()


def test_several_budgets_in_more_processes_than_videos(cfg, tmp_path):
    """With some versions of PyTorch, processes hang that make and leave a group for each of several evaluations."""
    budgets = ["dense", "5", "6", "7", "8"]

    def evaluate(folder: str, processes: int) -> list[dict]:
        cfg.OUTPUT_DIR = str(tmp_path / folder)
        assert run_forked(processes, evaluate_budgets, cfg, OracleDetector(1.0), budgets) == [0] * processes
        return list(map(without_times, read_strict(tmp_path / folder / "inference" / "budgets.json")))

    assert evaluate("alone", 1) == evaluate("together", 3)


def test_an_evaluation_goes_on_in_another_number_of_processes(real, moving, make_real, tmp_path):
    alone = real("alone")
    folder = real("continued", 2)
    for name in ("2.npz", "5.npz"):
        (folder / "videos" / name).unlink()
    before = {path: Path(path).stat().st_mtime_ns for path in record_paths(str(folder))}
    real("continued", 1)
    assert_same_videos(alone, folder)
    assert {path: Path(path).stat().st_mtime_ns for path in before} == before
    assert results_of(alone) == results_of(folder)


# The products of a batch are rounded in another order than those of a single frame, by about 1e-6 of a value; boxes
# lie within 96 pixels, scores within 1.
TOLERANCE = 1e-3


@pytest.mark.parametrize("streams", [2, 4])
@pytest.mark.parametrize("enabled", [True, False])
def test_streams_side_by_side_equal_one_by_one(real, streams, enabled):
    settings = {"MODEL__EVENTFUL__ENABLED": enabled}
    alone = real("alone", **settings)
    together = real("together", TEST__STREAMS_PER_BATCH=streams, **settings)
    assert_same_videos(alone, together, TOLERANCE)
    results = results_of(together)
    assert results["streams_per_batch"] == streams
    assert results["gflops_per_frame"] == results_of(alone)["gflops_per_frame"]


def test_streams_of_several_sizes(make_real, write_dataset, tmp_path):
    """Padded to a square they run together; padded to their own size, only those of one size do."""
    document = make_document(LENGTHS)
    for video in document["videos"][::2]:
        video["width"], video["height"] = 80, 56
    name, _ = write_dataset(document, "sizes", moving=True)
    for settings in ({}, {"MODEL__VIT__IMG_SIZE_HW": [96, 96]}):
        for streams in (1, 3):
            cfg, model = make_real(name, TEST__STREAMS_PER_BATCH=streams, **settings)
            cfg.OUTPUT_DIR = str(tmp_path / f"{streams}{len(settings)}")
            evaluate_once(cfg, model)
        one, three = (tmp_path / f"{streams}{len(settings)}" / "inference" for streams in (1, 3))
        assert_same_videos(one, three, TOLERANCE)


def test_threads_are_recorded_and_restored(cfg, model, tmp_path):
    before = torch.get_num_threads()
    cfg.TEST.THREADS_PER_PROCESS = before + 1
    evaluate_once(cfg, model)
    assert read_strict(tmp_path / "out" / "inference" / "results.json")["threads_per_process"] == before + 1
    assert torch.get_num_threads() == before
    with fixed_threads(0) as threads:
        assert threads == before


def fetch(folder: Path) -> None:
    """As on machines without a common disk: each process has a folder of its own."""
    rank = torch.distributed.get_rank()
    own = folder / str(rank)
    write_record(str(own), make_record(rank))
    write_record(str(own), make_record("both"))
    fetch_records(str(own), [0, 1, 2, "both", "nowhere"])


def test_records_of_other_machines_are_fetched(tmp_path):
    assert run_forked(3, fetch, tmp_path) == [0, 0, 0]
    names = [Path(path).name for path in record_paths(str(tmp_path / "0"))]
    assert names == ["0.npz", "1.npz", "2.npz", "both.npz"]
    assert_same(read_record(str(tmp_path / "0" / "videos" / "2.npz")), make_record(2))
    assert len(record_paths(str(tmp_path / "1"))) == 2


def evaluate_slowly(cfg) -> None:
    """The second process takes longer for its video than the group's operations may."""

    class Slow(OracleDetector):
        def detect(self, frame):
            if torch.distributed.get_rank() == 1 and frame["frame_id"] == 0:
                time.sleep(3)
            return super().detect(frame)

    evaluate_once(cfg, Slow())


def test_processes_wait_for_each_other_longer_than_operations_may_take(cfg, tmp_path):
    assert run_forked(2, evaluate_slowly, cfg, patience=1.5) == [0, 0]
    assert read_strict(tmp_path / "out" / "inference" / "results.json")["frames"] == 8


def evaluate_and_fail(cfg, folder: Path, end: str) -> None:
    """The second process ends in its first video."""

    class Failing(OracleDetector):
        def detect(self, frame):
            if torch.distributed.get_rank() == 1:
                if end == "raises":
                    raise ZeroDivisionError
                os.kill(os.getpid(), signal.SIGKILL)
            return super().detect(frame)

    try:
        evaluate_once(cfg, Failing())
    except EvaluationError as error:
        (folder / "said").write_text(str(error))
        raise


@pytest.mark.parametrize("end", ["raises", "is killed"])
def test_a_process_does_not_wait_for_one_that(cfg, tmp_path, monkeypatch, end):
    monkeypatch.setattr(process_barrier, "GRACE_SECONDS", 0.2)
    codes = run_forked(2, evaluate_and_fail, cfg, tmp_path, end)
    assert codes == [1, 1 if end == "raises" else -signal.SIGKILL]
    assert "another process of this evaluation has failed" in (tmp_path / "said").read_text()
    assert len(record_paths(str(tmp_path / "out" / "inference"))) == 1  # its own share is safe


def interrupt_a_waiting_process() -> None:
    """The first process waits in vain for the second, until it is interrupted."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    process_barrier.patient_group()
    _, other = comm.all_gather(os.getpid())
    if comm.get_rank() == 1:
        signal.sigwait({signal.SIGTERM})
        return
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    with pytest.raises(KeyboardInterrupt):
        process_barrier.wait_for_all()
    os.kill(other, signal.SIGTERM)


def test_waiting_can_be_interrupted():
    assert run_forked(2, interrupt_a_waiting_process, timeout=15) == [0, 0]


def fail_to_continue(cfg, folder: Path) -> None:
    """On machines without a common disk, only the second process's folder holds records of other settings."""
    rank = torch.distributed.get_rank()
    cfg.OUTPUT_DIR = str(folder / str(rank))
    try:
        evaluate_once(cfg, OracleDetector())
    except EvaluationError as error:
        (folder / f"said {rank}").write_text(str(error))
        raise


def test_all_processes_refuse_what_one_of_them_must(cfg, tmp_path):
    cfg.OUTPUT_DIR = str(tmp_path / "1")
    cfg.TEST.THREADS_PER_PROCESS = 1
    evaluate_once(cfg, OracleDetector())
    cfg.INPUT.MIN_SIZE_TEST = 40
    assert run_forked(2, fail_to_continue, cfg, tmp_path) == [1, 1]
    said = [(tmp_path / f"said {rank}").read_text() for rank in (0, 1)]
    assert said[0] == said[1] and "INPUT.MIN_SIZE_TEST was 0, now it is 40" in said[0]
    assert len(record_paths(str(tmp_path / "1" / "inference"))) == 2
