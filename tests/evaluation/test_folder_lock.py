"""Two evaluations never work in one folder at a time."""

from __future__ import annotations

import fcntl
import os
import threading

import pytest
from eventful_vitdet.errors import EvaluationError
from eventful_vitdet.evaluation import evaluate_once, folder_lock, record_paths

from .conftest import OracleDetector, read_strict


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out" / "inference"


def test_a_second_evaluation_waits_and_then_is_refused(cfg, folder, monkeypatch):
    monkeypatch.setattr(folder_lock, "PATIENCE_SECONDS", 0.0)
    model = OracleDetector()
    with (
        folder_lock.exclusive(str(folder)),
        pytest.raises(EvaluationError, match="another evaluation is running there"),
    ):
        evaluate_once(cfg, model, restart=True)
    assert model.seen == []
    evaluate_once(cfg, model)
    assert len(model.seen) == 8


def test_it_goes_on_when_the_first_is_done(cfg, model, folder, monkeypatch, caplog):
    monkeypatch.setattr(folder_lock, "LOOK_SECONDS", 0.01)
    first = folder_lock.exclusive(str(folder))
    first.__enter__()
    # The message says that the second one is waiting.
    monkeypatch.setattr(
        folder_lock.logger, "info", lambda *_: threading.Timer(0.05, first.__exit__, (None,) * 3).start()
    )
    evaluate_once(cfg, model)
    assert len(model.seen) == 8


def test_a_lock_that_is_somebody_elses(cfg, model, folder):
    (folder / folder_lock.LOCK_FILE).mkdir(parents=True)
    with pytest.raises(EvaluationError, match=r"\.lock: cannot be written to .Is a directory"):
        evaluate_once(cfg, model)


def test_disks_without_locks(cfg, model, monkeypatch, caplog):
    def unsupported(*_args):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    evaluate_once(cfg, model)
    assert len(model.seen) == 8 and "cannot be locked (Operation not supported)" in caplog.text


def test_a_record_that_vanishes_is_not_passed_over(cfg, folder):
    """As when somebody tidies up: results of fewer videos would look like those of all."""

    class Careless(OracleDetector):
        def detect(self, frame):
            for path in record_paths(str(folder)):
                os.unlink(path)
            return super().detect(frame)

    with pytest.raises(EvaluationError, match=r"records of 1 videos disappeared .* video videos/1.avi. Rerun"):
        evaluate_once(cfg, Careless())
    assert not (folder / "results.json").exists()
    model = OracleDetector()
    evaluate_once(cfg, model)
    assert [video for video, _ in model.seen] == [1] * 5
    assert read_strict(folder / "results.json")["videos"] == 2
