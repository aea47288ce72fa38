"""The tables on a CPU at tiny sizes: their rows, goals, and what a failure costs. Times themselves are not tested."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from eventful_vit import encoder, ops
from eventful_vitdet.gpu_report import backbone_tables, compiled_dense, detector_times, report_markdown
from eventful_vitdet.gpu_report.backbone_tables import Setting
from eventful_vitdet.gpu_report.dense_yardsticks import YARDSTICKS
from eventful_vitdet.gpu_report.frame_times import Timing, drifting_frames, nth, time_in_turn
from eventful_vitdet.gpu_report.goals import GOALS, goal_rows
from eventful_vitdet.gpu_report.kernel_launches import (
    BUSIEST,
    FRAME,
    busiest_kernels,
    span_and_idle,
    summarise_events,
)
from eventful_vitdet.gpu_report.report_markdown import format_report
from eventful_vitdet.gpu_report.report_models import ALL_BFLOAT16, BFLOAT16, FLOAT32, TINY, build_vit
from eventful_vitdet.modeling.detector_state import DetectorState
from torch.autograd import DeviceType

CPU = torch.device("cpu")
SETTINGS = (
    Setting("1024", 32, FLOAT32, (8, 4), yardsticks=True, crossover=(16,), rounds=3, seconds=20),
    Setting("16 streams", 32, BFLOAT16, (8,), streams=2, rounds=2),
)


@pytest.fixture
def no_detector(monkeypatch):
    monkeypatch.setattr(backbone_tables, "measure_detector", lambda result, where: None)


@pytest.fixture
def result(no_detector):
    return backbone_tables.measure_settings(SETTINGS, TINY, CPU, lambda result: None)


def test_rows_and_goals(result):
    assert result["errors"] == []
    rows = {(row["setting"], row["variant"]): row for row in result["rows"]}
    assert {name for setting, name in rows if setting == "1024"} == {"dense", "r=8", "r=4", *YARDSTICKS}
    assert all(row["ms"] > 0 and row["error"] is None for row in rows.values())
    assert rows["1024", "r=4"]["gmacs"] < rows["1024", "r=8"]["gmacs"] < rows["1024", "dense"]["gmacs"]
    assert rows["16 streams", "dense"]["gmacs"] == 2 * rows["1024", "dense"]["gmacs"]
    assert result["measured"]["1024 state GB"] > result["measured"]["16 streams state GB"] > 0
    assert set(result["crossover"]["1024"]["ms"]) == {4, 8, 16}
    assert [goal["name"] for goal in result["goals"]] == [goal.name for goal in GOALS]
    json.dumps(result, allow_nan=False)


def test_a_setting_that_fails_does_not_stop_the_others(no_detector):
    broken = Setting("672", 33, FLOAT32, (4,))  # no multiple of a patch
    result = backbone_tables.measure_settings((broken, SETTINGS[1]), TINY, CPU, lambda result: None)
    assert [error["name"] for error in result["errors"]] == ["672"] and "Traceback" in result["errors"][0]["trace"]
    assert {row["setting"] for row in result["rows"]} == {"16 streams"}


def test_a_way_that_fails_does_not_stop_the_others():
    def failing(number: int) -> None:
        if number == 2:
            raise RuntimeError("out of memory")

    timings = time_in_turn({"a": failing, "b": lambda number: None}, CPU, 3, 1, float("inf"))
    assert len(timings["b"].seconds) == 3
    assert timings["a"].error == "RuntimeError: out of memory" and len(timings["a"].seconds) == 1


def test_yardsticks_compute_the_same_another_way():
    model = build_vit(TINY, 32, FLOAT32, CPU, 4)
    model.enabled = False
    (frame,) = drifting_frames(1, 1, 32, torch.float32, CPU)
    before = ops.attention._attend_fused, ops.gpu.load_kernels
    with torch.no_grad():
        expected = model(frame)["last_feat"]
        for how in YARDSTICKS.values():
            with how():
                assert ops.gpu.load_kernels() is None
                torch.testing.assert_close(model(frame)["last_feat"], expected)
            assert (ops.attention._attend_fused, ops.gpu.load_kernels) == before


def crossover(**milliseconds):
    timings = {name.replace("_", "="): Timing([value / 1e3]) for name, value in milliseconds.items()}
    timings[backbone_tables.IN_FULL] = timings.pop("full")
    return backbone_tables.crossover(timings, tokens=100)


def test_crossover_is_where_frames_in_full_take_less_time():
    found = crossover(dense=4, full=5, r_8=1, r_16=4, r_32=8, r_64=9)
    assert found["r"] == 32 and found["share"] == pytest.approx(0.2)  # a quarter of the way from 16 to 32
    assert crossover(dense=4, full=4, r_8=1, r_16=4)["share"] == pytest.approx(0.16)
    assert crossover(dense=4, full=4, r_8=5, r_16=6)["share"] == pytest.approx(0.08)


def test_crossover_where_all_budgets_pay_or_nothing_is_known():
    found = crossover(dense=4, full=5, r_8=1, r_16=2)
    assert found["r"] is None and found["share"] > 1
    timings = {"dense": Timing([0.1]), backbone_tables.IN_FULL: Timing([]), "r=8": Timing([0.2])}
    assert backbone_tables.crossover(timings, 100)["share"] is None


def test_crossovers_are_measured_with_all_budgets_choosing():
    """Whatever share is set: those above it would take the time of frames in full."""
    model, seen = build_vit(TINY, 32, FLOAT32, CPU, 4), []
    model.observers.append(lambda trace: seen.append(encoder.CROSSOVER))
    calls = backbone_tables.crossover_calls(model, drifting_frames(1, 1, 32, torch.float32, CPU), SETTINGS[0])
    for name in ("r=4", "r=16", backbone_tables.IN_FULL):
        calls[name](0)
    assert seen == [float("inf"), float("inf"), 0] and encoder.CROSSOVER < 1


@pytest.mark.parametrize("share, line", [(0.264, None), (0.31, "GPU_CROSSOVER: 0.31}"), (2.0, "GPU_CROSSOVER: 2.00}")])
def test_the_report_says_how_to_set_another_crossover(share, line):
    found = {"dense_ms": 2.0, "full_ms": 2.5, "ms": {256: 1.5, 1024: 3.0}, "r": 1024}
    found = {**found, "share": share, "now": 0.26}
    text = report_markdown._tables({"crossover": {"1024": found}}, "")
    assert "one computed in full (2.5 ms; dense: 2 ms) from r = 1024 on (r = 256: 1.50, r = 1024: 3.00 ms)" in text
    assert line in text if line else "GPU_CROSSOVER" not in text


def test_goals_say_whether_they_are_met_or_why_they_are_not_measured():
    rows = {
        row["name"]: row for row in goal_rows({"1024 dense ms": 4.5, "16 streams r=512 ratio": 2.9}, "later", "fvcore")
    }
    assert rows["1024 px, bfloat16, backbone: dense"]["met"] is True
    assert rows["1024 px, bfloat16, 16 streams, r = 512: dense / eventful"]["met"] is False
    assert rows["1024 px, bfloat16, backbone: r = 512"]["reason"] == "later"
    assert rows["1024 px, whole detector, r = 512: dense / eventful"]["reason"] == "fvcore"


def test_goals_name_what_is_measured():
    """Each goal's quantity is one that the real settings, or the detector, measure."""
    names = {f"detector {name} ratio" for name in detector_times.WAYS}
    for setting in backbone_tables.SETTINGS:
        variants = ["dense", *(f"r={r}" for r in setting.budgets)]
        names |= {f"{setting.name} {variant} {unit}" for variant in variants for unit in ("ms", "ratio")}
        names.add(f"{setting.name} state GB")
    assert {goal.quantity for goal in GOALS} <= names


def test_the_whole_detector(tiny_cfg, monkeypatch):
    cfg = tiny_cfg(
        MODEL__RPN__IN_FEATURES=["p3", "p4", "p5", "p6"], MODEL__ANCHOR_GENERATOR__SIZES=[[16], [32], [64], [96]]
    )
    result: dict = {"rows": [], "measured": {}}
    begun = []
    begin = DetectorState.begin

    def watched(state, frames):
        begins, positions = begin(state, frames)
        begun.extend(begins)
        return begins, positions

    monkeypatch.setattr(DetectorState, "begin", watched)
    detector_times.measure_detector(result, CPU, cfg, rounds=2)
    assert begun[0] and not any(begun[1:])  # one video, whose frames follow each other
    assert [row["error"] for row in result["rows"]] == [None] * 2
    assert set(result["measured"]) == {f"detector {name} ratio" for name in detector_times.WAYS}
    # As computed: with MODEL.EVENTFUL.COMPUTE_DTYPE, which the heads follow.
    assert {row["type"] for row in result["rows"]} == {"bfloat16"}
    monkeypatch.setattr(detector_times, "missing_packages", lambda *names: "fvcore is not installed")
    detector_times.measure_detector(result, CPU)
    assert result["detector_reason"] == "fvcore is not installed"


def test_the_compiled_model_runs_beside_ours():
    result = compiled_dense.time_compiled(TINY, 32, CPU, None, "eager", 2)
    assert [row["error"] for row in result["rows"]] == [None, None] and result["type"] == ALL_BFLOAT16.name


def test_frames_drift_and_turn_around():
    frames = drifting_frames(3, 2, 32, torch.float32, CPU)
    steps = [(b - a).abs().amax(dim=1) for a, b in zip(frames, frames[1:])]
    assert all(step.max() > 4 * step.median() > 0 for step in steps)  # more at some places than at others
    order = [next(i for i, frame in enumerate(frames) if frame is nth(frames, number)) for number in range(7)]
    assert order == [0, 1, 2, 1, 0, 1, 2]


def test_idle_time_is_what_no_kernel_covers():
    assert span_and_idle([]) == (0.0, 0.0)
    assert span_and_idle([(5.0, 6.0), (0.0, 2.0), (1.0, 3.0), (8.0, 9.0)]) == (9.0, 4.0)


def test_events_outside_of_the_frame_do_not_count():
    def event(name, start, end, device=DeviceType.CPU):
        return SimpleNamespace(name=name, device_type=device, time_range=SimpleNamespace(start=start, end=end))

    events = [
        event("cudaLaunchKernel", 0, 1), event(FRAME, 10, 20), event("cudaGraphLaunch", 11, 12),
        event("cudaStreamSynchronize", 13, 14), event("cudaDeviceSynchronize", 21, 30),
        event(FRAME, 12, 25, DeviceType.CUDA), event("gate", 12, 14, DeviceType.CUDA),
        event("add", 15, 25, DeviceType.CUDA),
    ]  # fmt: skip
    assert summarise_events(events) == {"starts": 1, "waits": 1, "kernels": 2, "span_us": 13, "idle_us": 1}


def test_the_busiest_kernels_are_named_with_their_grids():
    def event(name, dur, grid, cat="kernel"):
        return {"ph": "X", "cat": cat, "name": name, "dur": dur, "ts": 0, "args": {"grid": grid} if grid else {}}

    trace = [event("linear", 5.0, [9, 1, 1]), event("gate", 3.0, [1, 1, 1]), event("linear", 6.0, [9, 1, 1])]
    trace += [event("linear", 1.0, [2, 1, 1]), event("Memcpy DtoH", 2.0, None, "gpu_memcpy")]
    trace += [event("python", 99.0, None, "cpu_op"), {"ph": "M", "name": "process_name"}]
    rows = busiest_kernels(trace)
    assert [tuple(row.values()) for row in rows] == [
        ("linear", "9 x 1 x 1", 2, 11.0), ("gate", "1 x 1 x 1", 1, 3.0), ("Memcpy DtoH", "", 1, 2.0),
        ("linear", "2 x 1 x 1", 1, 1.0),
    ]  # fmt: skip
    assert len(busiest_kernels([event(str(n), 1.0, [n]) for n in range(20)])) == BUSIEST
    launches = {"setting": "1024", "variant": "r=512", "starts": 3, "waits": 0, "kernels": 4, "span_us": 20.0,
                "idle_us": 3.0, "busiest": rows}  # fmt: skip
    outcome = {"status": "done", "reason": None, "seconds": 1.0, "result": {"launches": [launches]}}
    text = format_report({"machine": {}, "parts": {"tables": outcome}})
    assert "Where the GPU's time goes, 1024, r=512:" in text
    assert "| linear      | 9 x 1 x 1 |     2 |        11 |" in text
