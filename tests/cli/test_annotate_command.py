"""The annotated video of a tiny detector, through the command as a user calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction

import av
import cv2
import pytest
from draw.conftest import CONFIG, FRAMES, OPTIONS, picture
from eventful_vitdet.cli.annotate_command import main, parse
from eventful_vitdet.errors import VideoWriteError
from eventful_vitdet.interruption import SIGNALS
from eventful_vitdet.predictor import VideoDetector
from eventful_vitdet.video import FileSource, VideoWriter, iterate_frames, probe_video
from video.encoded_videos import GOP, add_sound, damage, encode


@pytest.fixture
def visualize(weights, repository, tmp_path, monkeypatch):
    """Calls the command; returns the exit code."""
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)

    def call(*words: str, source: str = "", **settings) -> int:
        return main(command(repository, weights, tmp_path, *words, source=source, **settings))

    return call


def command(repository, weights: str, tmp_path, *words: str, source: str = "", **settings) -> list[str]:
    """The words of a command line."""
    options = {**OPTIONS, "MODEL.WEIGHTS": weights, **{k.replace("__", "."): str(v) for k, v in settings.items()}}
    return [
        *("--config-file", str(repository / CONFIG), "--input", source or str(tmp_path / "in")),
        *("--output", str(tmp_path / "out" / "v.mp4"), "--confidence-threshold", "0.05", *words),
        *(word for pair in options.items() for word in pair),
    ]


def records(tmp_path) -> list[dict]:
    return [json.loads(line) for line in (tmp_path / "out" / "d.jsonl").read_text().splitlines()]


def test_everything_at_once(visualize, images, tmp_path, capsys):
    json_path = str(tmp_path / "out" / "d.jsonl")
    words = ["--side-by-side-dense", "--show-tokens", "any", "--budget", "0:6,3:2", "--save-json", json_path]
    assert visualize(*words) == 0
    info = probe_video(str(tmp_path / "out" / "v.mp4"))
    assert info.num_frames == FRAMES and info.fps == 30 and info.height > 64 and 192 <= info.width <= 200
    with av.open(str(tmp_path / "out" / "v.mp4")) as container:
        assert container.streams[0].codec_context.name in ("h264", "mpeg4")
    lines = records(tmp_path)
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    assert [line["budget"] for line in lines] == ["top-r 6"] * 3 + ["top-r 2"] * 5
    assert [line["flushed"] for line in lines] == [True] + [False] * 7
    assert lines[0]["gflops"]["total"] > lines[1]["gflops"]["total"] > lines[5]["gflops"]["total"]
    found = lines[1]["detections"][0]
    assert found["class"] in ("disc", "square", "triangle", "star", "ring", "cross") and len(found["box"]) == 4
    assert f"{FRAMES} frames, 1 of them computed in full" in capsys.readouterr().out
    assert sorted(os.listdir(tmp_path / "out")) == ["d.jsonl", "v.mp4"]


@pytest.mark.parametrize(("budget", "expected"), [("3", 3), (" 0:3 ", 3), ("0", 0), ("99999", 99999)])
def test_a_single_budget(visualize, images, tmp_path, budget, expected):
    assert visualize("--budget", budget, "--max-frames", "2", "--save-json", str(tmp_path / "out" / "d.jsonl")) == 0
    assert [line["budget"] for line in records(tmp_path)] == [f"top-r {expected}"] * 2


def test_frames_of_changing_size_flush_and_are_fitted(visualize, images, tmp_path):
    cv2.imwrite(str(images / "4.png"), picture(4, 96, 64))
    assert visualize("--save-json", str(tmp_path / "out" / "d.jsonl")) == 0
    assert [line["flushed"] for line in records(tmp_path)] == [True, False, False, False, True, True, False, False]
    info = probe_video(str(tmp_path / "out" / "v.mp4"))
    assert (info.width, info.num_frames) == (96, FRAMES)


@pytest.mark.parametrize("error", [KeyboardInterrupt, VideoWriteError("v.mp4: the disk is full")])
def test_an_interruption_leaves_whole_files(visualize, images, tmp_path, monkeypatch, error):
    detect, calls = VideoDetector.detect, []

    def interrupted(self, frame):
        calls.append(frame.index)
        if frame.index == 5:
            raise error
        return detect(self, frame)

    monkeypatch.setattr(VideoDetector, "detect", interrupted)
    assert visualize("--save-json", str(tmp_path / "out" / "d.jsonl")) == (130 if error is KeyboardInterrupt else 1)
    assert probe_video(str(tmp_path / "out" / "v.mp4")).num_frames == 5 == len(records(tmp_path))
    assert sorted(os.listdir(tmp_path / "out")) == ["d.jsonl", "v.mp4"]


def test_a_damaged_frame_on_the_way(visualize, images, tmp_path, capsys):
    (images / "3.png").write_bytes((images / "2.png").read_bytes()[:60])
    assert visualize() == 1
    assert "3.png: cannot be read as an image" in capsys.readouterr().err
    assert probe_video(str(tmp_path / "out" / "v.mp4")).num_frames == 3


def test_a_number_of_frames_is_enough(visualize, images, tmp_path, capsys):
    assert visualize("--max-frames", "3", "--save-frames", "1,7") == 0
    shown = capsys.readouterr()
    assert f"frame 1: {tmp_path / 'out' / 'v_1.png'}\n" in shown.out
    assert "no picture of frame 7: there were 3 frames" in shown.err
    assert sorted(os.listdir(tmp_path / "out")) == ["v.mp4", "v_1.png"]
    assert cv2.imread(str(tmp_path / "out" / "v_1.png")).shape[1] == 96
    assert probe_video(str(tmp_path / "out" / "v.mp4")).num_frames == 3


def test_small_frames_can_be_drawn_on_larger_ones(visualize, images, tmp_path):
    json_path = tmp_path / "out" / "d.jsonl"
    assert visualize("--enlarge", "3", "--save-json", str(json_path), "--max-frames", "1", "--save-frames", "0") == 0
    picture_0 = cv2.imread(str(tmp_path / "out" / "v_0.png"))
    assert picture_0.shape[1] == 3 * 96 and probe_video(str(tmp_path / "out" / "v.mp4")).width == 3 * 96
    line = records(tmp_path)[0]
    assert line["width"] == 96 and max(found["box"][2] for found in line["detections"]) <= 96


def test_a_controller_from_the_configuration(visualize, images, tmp_path):
    settings = {"NAME": "gflops", "TARGET_GFLOPS": 1e-6, "R_MIN": 4}
    keys = {f"MODEL.EVENTFUL.CONTROLLER.{key}": value for key, value in settings.items()}
    assert visualize("--save-json", str(tmp_path / "out" / "d.jsonl"), **keys) == 0
    budgets = [line["budget"] for line in records(tmp_path)]
    assert budgets[0] == "top-r 64" and budgets[-1] == "top-r 4"


def test_a_target_is_told_with_what_was_reached_and_r(visualize, images, tmp_path, capsys):
    # A target that a machine under load holds too, so that r need not fall.
    keys = {"MODEL.EVENTFUL.CONTROLLER.NAME": "latency", "MODEL.EVENTFUL.CONTROLLER.TARGET_MS": 9000}
    assert visualize("--save-json", str(tmp_path / "out" / "d.jsonl"), **keys) == 0
    lines = records(tmp_path)
    assert lines[0]["target"]["reached"] is None  # a flush frame does not count
    last = lines[-1]["target"]
    assert (last["unit"], last["target"]) == ("ms", 9000) and last["r"] >= 36 // 16
    mean = sum(line["ms"]["total"] for line in lines[1:]) / (FRAMES - 1)
    assert last["reached"] == pytest.approx(mean, abs=0.001)  # lines are rounded to a thousandth
    said = f"target 9000 ms per frame: reached {last['reached']:.3g} ms with r = {last['r']} in the end"
    assert said in capsys.readouterr().out
    assert visualize("--save-json", str(tmp_path / "out" / "d.jsonl")) == 0
    assert {line["target"] for line in records(tmp_path)} == {None} and "reached" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "settings", "message"),
    [
        (["--show-tokens", "7"], {}, "'7' names no tokens to show: choose 'any', a block from 0 to 1"),
        (["--budget", "5:1"], {}, "--budget: schedule '5:1': a schedule begins at frame 0"),
        (["--budget", "[1]"], {}, "--budget: '[1]' is neither a number of tokens nor a"),
        ([], {"MODEL__EVENTFUL__CONTROLLER__NAME": "schedule"}, "CONTROLLER.SCHEDULE: '' is neither"),
        ([], {"MODEL__WEIGHTS": ""}, "MODEL.WEIGHTS is empty"),
        (["--output", "v.avi"], {}, "v.avi: videos are written as .mp4"),
        (["--show-tokens", "any"], {"MODEL__EVENTFUL__ENABLED": False}, "MODEL.EVENTFUL.ENABLED is False"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(visualize, images, tmp_path, capsys, words, settings, message):
    assert visualize(*words, **settings) == 1
    error = capsys.readouterr().err
    assert message in error and error.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "out").exists() or os.listdir(tmp_path / "out") == []


def test_input_that_is_no_video(visualize, tmp_path, capsys):
    (tmp_path / "in").write_text("words")
    assert visualize() == 1
    assert "cannot be opened as a video" in capsys.readouterr().err
    assert visualize(source=str(tmp_path / "absent")) == 1
    assert "there is no such file or folder" in capsys.readouterr().err


def test_the_input_is_not_overwritten(visualize, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    encode(tmp_path / "out" / "v.mp4", count=1)
    before = (tmp_path / "out" / "v.mp4").read_bytes()
    assert visualize(source=str(tmp_path / "out" / "v.mp4")) == 1
    assert "is the input itself" in capsys.readouterr().err
    assert visualize(source=str(tmp_path / "out" / "*.mp4")) == 1
    assert "is the input itself, or a part of it" in capsys.readouterr().err
    assert (tmp_path / "out" / "v.mp4").read_bytes() == before


def test_no_output_takes_the_place_of_another_or_of_an_input(visualize, images, tmp_path, capsys):
    (images / "4.png").rename(images / "v_4.png")
    before = (images / "v_4.png").read_bytes()
    (tmp_path / "folder.mp4").mkdir()
    for words, message in (
        (["--save-json", str(tmp_path / "out" / "v.mp4")], "v.mp4: is given for two outputs"),
        (["--save-json", str(images / "0.png")], "0.png: is the input itself"),
        (["--output", str(images / "v.mp4"), "--save-frames", "2,4"], "v_4.png: is the input itself"),
        (["--output", str(tmp_path / "folder.mp4")], "folder.mp4: is a folder"),
    ):
        assert visualize(*words) == 1
        assert message in capsys.readouterr().err
    assert (images / "v_4.png").read_bytes() == before and not (tmp_path / "out").exists()
    assert len(os.listdir(images)) == FRAMES


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--confidence-threshold", "nan", "'nan' is not a score; scores go from 0 to 1"),
        ("--confidence-threshold", "30", "'30' is not a score"),
        ("--save-frames", "1,x", "'1,x' are not numbers of frames, such as 20,60"),
        ("--max-frames", "0", "'0' is not a number, 1 or larger"),
    ],
)
def test_values_that_options_do_not_take(capsys, option, value, message):
    with pytest.raises(SystemExit):
        parse(["--config-file", "x", "--input", "x", "--output", "x.mp4", option, value])
    assert message in capsys.readouterr().err


def test_an_impatient_second_signal_does_not_disturb_the_closing(visualize, images, tmp_path, monkeypatch):
    detect, finish = VideoDetector.detect, VideoWriter._finish

    def interrupted(self, frame):
        if frame.index == 5:
            signal.raise_signal(signal.SIGTERM)
        return detect(self, frame)

    def interrupted_again(self):
        signal.raise_signal(signal.SIGINT)
        return finish(self)

    monkeypatch.setattr(VideoDetector, "detect", interrupted)
    monkeypatch.setattr(VideoWriter, "_finish", interrupted_again)
    before = [signal.getsignal(number) for number in SIGNALS]
    assert visualize() == 130
    assert probe_video(str(tmp_path / "out" / "v.mp4")).num_frames == 5
    assert os.listdir(tmp_path / "out") == ["v.mp4"] and before == [signal.getsignal(number) for number in SIGNALS]


def test_a_signal_while_files_are_opened_leaves_nothing(visualize, images, tmp_path, monkeypatch):
    enter = VideoWriter.__enter__

    def interrupted(self):
        signal.raise_signal(signal.SIGINT)
        return enter(self)

    monkeypatch.setattr(VideoWriter, "__enter__", interrupted)
    assert visualize() == 130 and os.listdir(tmp_path / "out") == []


# Videos with times, sound and damage of their own.

UNEVEN = [0.0, 0.1, 0.15, 0.8, 0.85, 1.3, 4.0, 4.05]


def written_times(path) -> list[float]:
    return [round(frame.seconds, 3) for frame in iterate_frames(str(path))]


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_times_are_those_of_the_file(visualize, tmp_path, suffix):
    codec = "libvpx" if suffix == "webm" else "libx264"
    source = encode(tmp_path / f"in.{suffix}", codec, seconds=UNEVEN, tick=Fraction(1, 1000), b_frames=0)
    json_path = str(tmp_path / "out" / "d.jsonl")
    assert visualize("--save-json", json_path, source=str(source)) == 0
    assert [line["seconds"] for line in records(tmp_path)] == UNEVEN == written_times(tmp_path / "out" / "v.mp4")
    assert visualize("--save-json", json_path, "--every", "2", "--start", "1", source=str(source)) == 0
    assert [(line["frame"], line["seconds"]) for line in records(tmp_path)] == list(enumerate(UNEVEN))[1::2]
    assert [line["flushed"] for line in records(tmp_path)] == [True, False, False, False]  # a step is no gap
    shown = [round(second - UNEVEN[1], 3) for second in UNEVEN[1::2]]
    assert written_times(tmp_path / "out" / "v.mp4") == shown


def test_a_part_of_a_video(visualize, tmp_path):
    source = str(encode(tmp_path / "in.mp4"))
    words = ["--save-json", str(tmp_path / "out" / "d.jsonl"), "--save-frames", "11"]
    assert visualize(*words, "--start", "7", "--end", "16", "--every", "4", source=source) == 0
    assert [line["frame"] for line in records(tmp_path)] == [7, 11, 15]
    assert sorted(os.listdir(tmp_path / "out")) == ["d.jsonl", "v.mp4", "v_11.png"]
    assert visualize(*words, "--start", "39", source=source) == 0
    assert [line["frame"] for line in records(tmp_path)] == [39]


def test_a_part_that_is_none(visualize, tmp_path, capsys, monkeypatch):
    source = str(encode(tmp_path / "in.mp4", count=3))
    assert visualize("--start", "2", "--end", "2", source=source) == 1
    assert "there is nothing from frame 2 to before frame 2" in capsys.readouterr().err
    assert visualize("--start", "3", source=source) == 1
    assert "in.mp4: ends before frame 3, with which it was to start" in capsys.readouterr().err
    monkeypatch.setattr(FileSource, "live", True)
    assert visualize("--every", "2", source=source) == 1
    assert "is live; a start, an end and a step are for files" in capsys.readouterr().err


def test_sound_is_copied_unless_it_is_not_wanted(visualize, tmp_path):
    source = add_sound(tmp_path / "in.mp4", encode(tmp_path / "v.mp4", count=12, b_frames=0), seconds=0.4)
    for words, expected in (([], ["video", "audio"]), (["--no-audio"], ["video"])):
        assert visualize(*words, source=str(source)) == 0
        with av.open(str(tmp_path / "out" / "v.mp4")) as container:
            assert [stream.type for stream in container.streams] == expected


def test_pixels_that_are_not_square_are_shown_so(visualize, tmp_path):
    def set_aspect(stream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    assert visualize(source=str(encode(tmp_path / "in.mp4", count=3, prepare=set_aspect))) == 0
    with av.open(str(tmp_path / "out" / "v.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


def test_all_that_can_be_decoded_is_written_and_the_damage_told(visualize, tmp_path, capsys, caplog):
    source = encode(tmp_path / "in.mp4", b_frames=0)
    damage(source, GOP + 2, packets=3)
    assert visualize("--save-json", str(tmp_path / "out" / "d.jsonl"), source=str(source)) == 1
    given = [number for number in range(40) if number not in (14, 15, 16)]
    assert [line["frame"] for line in records(tmp_path)] == given
    assert [line["flushed"] for line in records(tmp_path)] == [number in (0, 17) for number in given]
    assert probe_video(str(tmp_path / "out" / "v.mp4")).num_frames == 37
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and "3 frames cannot be decoded, the first is frame 14 (0.467 s)" in error
    assert "ends early" not in caplog.text


def test_several_inputs_with_an_output_each(visualize, tmp_path, capsys):
    for name in ("a/1.mp4", "a/2.mp4", "b/1.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        encode(tmp_path / name, count=3, b_frames=0)
    damage(tmp_path / "a" / "2.mp4", 2)
    out = tmp_path / "all"
    words = ["--input", str(tmp_path / "b" / "1.mp4"), "--output", str(out), "--save-json", str(out)]
    assert visualize(*words, source=str(tmp_path / "a")) == 1
    assert sorted(os.listdir(out)) == ["1-2.jsonl", "1-2.mp4", "1.jsonl", "1.mp4", "2.jsonl", "2.mp4"]
    assert [probe_video(str(out / f"{name}.mp4")).num_frames for name in ("1", "2", "1-2")] == [3, 2, 3]
    lines = [json.loads(line) for line in (out / "1-2.jsonl").read_text().splitlines()]
    assert [(line["frame"], line["flushed"]) for line in lines] == [(0, True), (1, False), (2, False)]
    output = capsys.readouterr()
    assert "2.mp4: the video is damaged: 1 frame cannot be decoded" in output.err
    assert output.err.splitlines()[-1] == "error: 1 of 3 videos could not be read whole"
    assert output.out.count("3 frames, 1 of them computed in full") == 2


def test_several_inputs_and_names_that_cannot_be(visualize, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in ("1.mp4", "2.mp4"):
        encode(tmp_path / "in" / name, count=2)
    before = (tmp_path / "in" / "1.mp4").read_bytes()
    for words, message in (
        ([], "--output {out}/v.mp4: there are 2 videos, a file for each; name a folder"),
        (["--output", "{out}", "--save-json", "d.jsonl"], "--save-json d.jsonl: there are 2 videos"),
        (["--output", "{in}"], "1.mp4: is an input; choose another folder"),
    ):
        folders = {"out": str(tmp_path / "out"), "in": str(tmp_path / "in")}
        assert visualize(*(word.format(**folders) for word in words)) == 1
        assert message.format(**folders) in capsys.readouterr().err
    assert (tmp_path / "in" / "1.mp4").read_bytes() == before and not (tmp_path / "out").exists()


def test_inputs_may_stand_before_keys():
    words = ["--config-file", "x", "--output", "o", "--input", "a.mp4", "b.mp4", "MODEL.WEIGHTS", "w"]
    arguments = parse(words)
    assert arguments.input == ["a.mp4", "b.mp4"] and arguments.opts == ["MODEL.WEIGHTS", "w"]
    arguments = parse(["--input", "a", "--input", "b", "--config-file", "x", "--output", "o", "SEED", "1"])
    assert arguments.input == ["a", "b"] and arguments.opts == ["SEED", "1"]
    with pytest.raises(SystemExit):
        parse(["--config-file", "x", "--output", "o", "--input", "MODEL.WEIGHTS", "w"])


# Ended from outside.


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 130), (signal.SIGKILL, -9)])
def test_a_signal_ends_it_within_two_seconds_and_leaves_what_plays(repository, weights, tmp_path, number, code):
    source = encode(tmp_path / "in.mp4", seconds=[i / 30 for i in range(250)])
    words = command(repository, weights, tmp_path, "--no-window", source=str(source))
    path = os.pathsep.join(folder for folder in sys.path if folder)
    process = subprocess.Popen(
        [sys.executable, str(repository / "tools" / "visualize_video.py"), *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
    )
    part, deadline = tmp_path / "out" / "v.part.mp4", time.monotonic() + 120
    try:
        while not part.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.005)
        began = time.monotonic()
        process.send_signal(number)
        assert process.wait(20) == code
        assert time.monotonic() - began < 2
    finally:
        process.kill()
        process.wait()
    found = part if number == signal.SIGKILL else tmp_path / "out" / "v.mp4"
    frames = [frame.number for frame in iterate_frames(str(found))]
    assert frames == list(range(len(frames))) and 1 <= len(frames) < 250
    if number == signal.SIGTERM:
        assert os.listdir(tmp_path / "out") == ["v.mp4"]
