"""`advise`: what it measures, says and writes, on the demo's detector and a rendered video."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest
from draw.conftest import CONFIG, OPTIONS
from eventful_vitdet.budget_advice import measure_budgets
from eventful_vitdet.cli.main_command import main
from eventful_vitdet.config_files import build_cfg
from eventful_vitdet.errors import ConfigError
from eventful_vitdet.evaluation import compute_agreement
from eventful_vitdet.evaluation.detection_table import DetectionTable
from eventful_vitdet.predictor import VideoDetector, class_names, load_detector
from eventful_vitdet.structures import FrameCost
from eventful_vitdet.video import open_source

FRAMES = 6


@pytest.fixture(scope="module")
def video(repository, tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("rendered")
    sys.path.append(str(repository / "datasets"))
    try:
        import render_synthetic_vid

        words = ["--output", str(folder), "--split", "test", "--videos", "1", "--frames", str(FRAMES)]
        assert render_synthetic_vid.main(words) == 0
    finally:
        sys.path.pop()
    return str(folder / "videos" / "test_000.mp4")


DEMO = ["--model", "demo/vitdet_tiny", "MODEL.DEVICE", "cpu"]


def seconds_by_budget(monkeypatch, dense: float, eventful: float) -> None:
    """Let frames cost what a pretended machine takes."""
    real = VideoDetector._run

    def run(self, model_input):
        output, cost = real(self, model_input)
        seconds = eventful if self.model.enabled else dense
        return output, FrameCost(cost.flushed, cost.macs, seconds / 2, seconds)

    monkeypatch.setattr(VideoDetector, "_run", run)


def recommended(out: str) -> str:
    (line,) = [line for line in out.splitlines() if line.startswith("recommendation: ")]
    return line


def test_a_budget_is_recommended_by_a_command_that_runs(video, tmp_path, capsys, monkeypatch):
    seconds_by_budget(monkeypatch, dense=0.3, eventful=0.1)
    monkeypatch.chdir(tmp_path)  # as outside of a checkout
    words = ["advise", video, "--target-ms", "150", "--budgets", "64", "160", "--output", "out/advice.json"]
    assert main([*words, *DEMO]) == 0
    shown = capsys.readouterr()
    rows = [line for line in shown.out.splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows] == ["budget", "-------", "dense", "r = 160", "r = 64"]
    line = recommended(shown.out)
    _, _, command = line.rpartition(": ")
    assert line.startswith("recommendation: r = ") and "takes 100 ms (95th percentile 100)" in line
    result = json.loads(Path("out/advice.json").read_text())
    assert result["command"] == command and result["frames"] == FRAMES and not result["interrupted"]
    assert result["recommended"] in ("r = 160", "r = 64") and result["target_ms"] == 150
    dense, more, less = result["budgets"]
    assert dense["gflops"] > more["gflops"] > less["gflops"] and more["state_bytes"] == less["state_bytes"] > 10**6
    assert 80 < more["agreement"] <= 100 and dense["agreement"] is None
    assert more["timed_frames"] == FRAMES - 2 and more["full_milliseconds"] is None
    program, *words = shlex.split(command)
    assert program == "eventful-vitdet"
    assert main([*words, "--max-frames", "2", "--no-window", "--output", "out/boxes.mp4"]) == 0
    assert "out/boxes.mp4: 2 frames" in capsys.readouterr().out


def test_the_dense_model_may_be_enough(video, capsys, monkeypatch):
    seconds_by_budget(monkeypatch, dense=0.1, eventful=0.02)
    assert main(["advise", video, "--target-ms", "150", "--budgets", "64", *DEMO]) == 0
    line = recommended(capsys.readouterr().out)
    assert "no budget is needed, the dense model takes 100 ms" in line and "MODEL.EVENTFUL.ENABLED False" in line


def test_where_nothing_is_fast_enough_it_says_what_to_try(video, capsys, monkeypatch):
    seconds_by_budget(monkeypatch, dense=0.3, eventful=0.2)
    assert main(["advise", video, "--target-ms", "190", "--budgets", "64", *DEMO]) == 0
    out = capsys.readouterr().out
    assert "nothing that was measured reaches 190 ms: r = 64, the fastest, takes 200 ms" in recommended(out)
    tries = [line for line in out.splitlines() if line.startswith("to try: ")]
    assert len(tries) == 3 and "--budgets 20" in tries[0] and "INPUT.MAX_SIZE_TEST 256" in tries[2]
    # Each is a command that measures it.
    (_, _, command), *_ = [line.rpartition(": ") for line in tries if "INPUT.MAX_SIZE_TEST" in line]
    assert main([*shlex.split(command)[1:], "--budgets", "64"]) == 0
    assert recommended(capsys.readouterr().out)


def test_agreement_is_that_of_evaluations(video):
    cfg = build_cfg(
        "demo/vitdet_tiny", ["MODEL.WEIGHTS", "weights/demo_vitdet_tiny.safetensors", "MODEL.DEVICE", "cpu"]
    )
    cfg.MODEL.WEIGHTS = str(Path(__file__).parents[2] / cfg.MODEL.WEIGHTS)
    model = load_detector(cfg)
    measured = measure_budgets(cfg, model, open_source(video), budgets=[2])
    tables = []
    for r in (0, 2):
        model.enabled = bool(r)
        own = cfg.clone()
        own.defrost()
        own.MODEL.EVENTFUL.R = r
        with VideoDetector(own, model) as detector:
            found = [detector.detect(frame) for frame in open_source(video).frames()]
        tables.append(DetectionTable.join(DetectionTable.of_frame(i, f.detections) for i, f in enumerate(found)))
    images = [{"image_id": number} for number in range(FRAMES)]
    expected = compute_agreement(images, class_names(cfg), [], *tables)["VID-AP50"]
    assert measured.eventful[0].agreement == pytest.approx(expected) and expected < 100
    assert measured.tokens == 320 and measured.picture == (256, 320) and measured.frames == FRAMES


@pytest.fixture
def tiny(repository, weights) -> list[str]:
    return ["--model", str(repository / CONFIG), "--weights", weights, *(w for pair in OPTIONS.items() for w in pair)]


@pytest.mark.parametrize(("words", "steps"), [(["--start", "2"], 12), (["--start", "2", "--frames", "4"], 8)])
def test_the_progress_bar_counts_from_the_first_frame(tiny, images, capsys, words, steps):
    assert main(["advise", str(images), "--target-ms", "1000", "--budgets", "3", *words, *tiny]) == 0
    assert f"measuring: 100%|██████████| {steps}/{steps} " in capsys.readouterr().err


def interrupt_at(monkeypatch, call: int) -> None:
    real, calls = VideoDetector.detect, []

    def detect(self, frame):
        calls.append(frame.index)
        if len(calls) == call:
            raise KeyboardInterrupt
        return real(self, frame)

    monkeypatch.setattr(VideoDetector, "detect", detect)


def test_an_interruption_shows_what_was_measured(tiny, images, tmp_path, capsys, monkeypatch):
    # Two budgets: two first frames, five rounds, and one of the two in the sixth.
    interrupt_at(monkeypatch, 2 + 2 * 5 + 2)
    output = tmp_path / "advice.json"
    words = ["advise", str(images), "--target-ms", "1000", "--budgets", "3", "--output", str(output), *tiny]
    assert main(words) == 130
    out = capsys.readouterr().out
    assert "interrupted after 5 of 30 frames" in out and recommended(out)
    result = json.loads(output.read_text())
    assert result["interrupted"] and result["frames"] == 5 and result["budgets"][1]["timed_frames"] == 3
    # Too early, there is nothing to tell.
    monkeypatch.undo()
    interrupt_at(monkeypatch, 2 + 2 * 3)
    output.unlink()
    assert main(words) == 130
    shown = capsys.readouterr()
    assert "recommendation" not in shown.out and shown.err.endswith("interrupted\n") and not output.exists()


def test_budgets_that_memory_lacks_are_left_out(tiny, images, capsys, monkeypatch):
    monkeypatch.setattr("eventful_vitdet.budget_advice.interleaved_frames.memory_left", lambda: 1000.0)
    assert main(["advise", str(images), "--target-ms", "1000", "--budgets", "3", "2", "1", *tiny]) == 0
    shown = capsys.readouterr()
    assert "r = 3 " in shown.out and "r = 2 " not in shown.out
    assert "warning: r = 2, 1: not measured, as a budget keeps" in shown.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target-ms", "50", "MODEL.META_ARCHITECTURE", "VideoClassifier"], "a detector is needed here"),
        (["--target-ms", "50", "--frames", "4", "--start", "6"], "4 or more frames are needed, found 2"),
        (["--target-ms", "50", "--start", "99"], "4 or more frames are needed, found 0"),
        (
            ["--target-ms", "50", "--budgets", "3", "MODEL.EVENTFUL.CONTROLLER.R_MIN", "4"],
            "R_MIN and R_MAX forbid r = 3",
        ),
        (["--target-ms", "50", "--output", "."], "--output .: is a folder; name a file"),
    ],
)
def test_mistakes_are_one_line(tiny, images, capsys, words, message):
    assert main(["advise", str(images), *tiny[:4], *words, *tiny[4:]]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.mp4"], "--target-ms"),
        (["a.mp4", "--target-ms", "0"], "'0' is not a number above 0"),
        (["a.mp4", "--target-ms", "nan"], "'nan' is not a number"),
        (["a.mp4", "--target-ms", "5", "--min-agreement", "101"], "'101' is not a number from 0 to 100"),
        (["a.mp4", "--target-ms", "5", "--frames", "3"], "'3' is not a number, 4 or larger"),
        (["a.mp4", "--target-ms", "5", "--budgets", "64", "calibrated"], "calibrated budgets are not measured here"),
        (["a.mp4", "--target-ms", "5", "--budgets", "\N{SUPERSCRIPT TWO}"], "--budgets needs 'dense', 'calibrated' or"),
        (["a.mp4", "b.mp4", "--target-ms", "5"], "give one video, folder, address or camera, found 2"),
    ],
)
def test_wrong_words(capsys, words, message):
    with pytest.raises(SystemExit) as end:
        main(["advise", *words])
    assert end.value.code == 2 and message in capsys.readouterr().err


def test_pictures_that_do_not_belong_together_have_no_later_frames(tiny, images, monkeypatch):
    cfg = build_cfg(tiny[1], ["MODEL.WEIGHTS", tiny[3], *tiny[4:]])
    source = open_source(str(images))
    real = source.frames
    from dataclasses import replace

    monkeypatch.setattr(source, "frames", lambda start: (replace(f, sequence=f.index) for f in real(start)))
    with pytest.raises(ConfigError, match="every frame begins a sequence"):
        measure_budgets(cfg, load_detector(cfg), source, budgets=[3])


def test_frames_of_a_camera_are_taken_before_the_models_run(tiny, images, monkeypatch):
    """It would not wait, and the frames that are missed would be gaps, each of which is computed in full."""
    cfg = build_cfg(tiny[1], ["MODEL.WEIGHTS", tiny[3], *tiny[4:]])
    source, events = open_source(str(images)), []
    real, detect = source.frames, VideoDetector.detect

    def frames(start: int):
        for frame in real(start):
            events.append("frame")
            yield frame

    monkeypatch.setattr(source, "live", True)
    monkeypatch.setattr(source, "frames", frames)
    monkeypatch.setattr(VideoDetector, "detect", lambda self, frame: (events.append("run"), detect(self, frame))[1])
    measured = measure_budgets(cfg, load_detector(cfg), source, budgets=[3], frames=5)
    assert events == ["frame"] * 5 + ["run"] * (2 + 2 * 5) and measured.frames == 5
