"""Operators against float64, and whole models against the CPU: what is right passes, and a fault is found."""

from __future__ import annotations

import contextlib

import pytest
import torch
from eventful_vit import Threshold, ops
from eventful_vit.ops import gpu
from eventful_vitdet.gpu_report import model_checks, operator_checks
from eventful_vitdet.gpu_report.frame_times import drifting_frames
from eventful_vitdet.gpu_report.operator_cases import distance
from eventful_vitdet.gpu_report.report_models import FLOAT32, TINY, build_vit

pytestmark = pytest.mark.skipif(
    gpu.load_kernels() is None, reason=f"the GPU's kernels do not run: {gpu.why_unavailable()}"
)
OPERATORS = {
    "attend", "attend_windows", "embed", "error_norms", "finite", "gate", "linear", "normalise", "send",
    "store, replace, add", "update_sums, divide",
}  # fmt: skip


@pytest.fixture(scope="module")
def outcomes() -> list[dict]:
    return operator_checks.check_group("float32", 0)


def test_every_operator_passes_in_a_size(outcomes):
    result = operator_checks.summarise(outcomes)
    assert result["ok"] and not result["failures"]
    assert {row["operator"] for row in result["rows"]} == OPERATORS
    assert all(0 <= row["error"] <= row["bound"] and row["cases"] for row in result["rows"])


def test_kernels_that_are_wrong_or_fail_are_found(monkeypatch):
    right = gpu.load_kernels()

    def wrong(*arguments):
        return right[ops.normalise](*arguments) + 1e-3

    def failing(*arguments):
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(gpu, "load_kernels", lambda device=None: {**right, ops.normalise: wrong, ops.finite: failing})
    result = operator_checks.summarise(operator_checks.check_group("float32", 0))
    assert {failure["operator"] for failure in result["failures"]} == {"normalise", "finite"}
    assert any("illegal memory access" in (failure["trace"] or "") for failure in result["failures"])
    rows = {row["operator"]: row for row in result["rows"]}
    assert not result["ok"] and rows["normalise"]["error"] > rows["normalise"]["bound"]
    assert rows["linear"]["failures"] == 0


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        ([1.0, 3.0], [1.0, 3.5], 0.5 / 4.5),
        ([torch.nan], [1.0], torch.inf),
        ([], [], 0.0),
        ([1.0], [1.0, 2.0], torch.inf),
    ],
)
def test_distance(mine, theirs, expected):
    assert distance(torch.tensor(mine), torch.tensor(theirs, dtype=torch.float64)) == pytest.approx(expected)
    assert distance(torch.tensor([1, 2]), torch.tensor([1, 3])) == torch.inf


@pytest.fixture
def model_and_frames():
    cpu = torch.device("cpu")
    return build_vit(TINY, 24, FLOAT32, cpu, 3), drifting_frames(2, 1, 24, torch.float32, cpu)


def test_a_model_agrees_with_the_cpu(model_and_frames):
    rows = model_checks.compare_paths(*model_and_frames, "tiny", 1e-3)
    assert [row["what"] for row in rows] == ["dense", "top-r", "threshold"]
    assert all(row["ok"] and row["error"] < 1e-5 and row["same_choice"] == 1 for row in rows)


def test_frames_without_waits_come_after_what_is_prepared_once(model_and_frames):
    model, frames = model_and_frames
    model.set_policy(Threshold(0.5))  # as a comparison leaves it
    calls, within = [], []
    model.register_forward_pre_hook(lambda model, args: calls.append((model.enabled, str(model.policy))))

    @contextlib.contextmanager
    def no_waits():
        before = len(calls)
        yield
        within.append((before, calls[before:]))

    model_checks.run_without_waits(model, frames, 8, no_waits)
    (dense_before, dense), (before, later) = within
    assert dense_before == 3 and [enabled for enabled, _ in dense] == [False]
    assert before == 8 and later == [(True, "top-r 8"), (True, "top-r 6"), (True, "top-r 8")]


def test_a_model_with_a_wrong_kernel_does_not(model_and_frames, monkeypatch):
    right = gpu.load_kernels()
    wrong = {**right, ops.divide: lambda *arguments: 1.1 * right[ops.divide](*arguments)}
    monkeypatch.setattr(gpu, "load_kernels", lambda device=None: wrong)
    rows = model_checks.compare_paths(*model_and_frames, "tiny", 1e-3)
    assert [row["ok"] for row in rows] == [True, False, False]  # the dense model has no such sums
