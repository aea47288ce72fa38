"""Several inputs as one batch of streams, through the command, beside runs of each by itself."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from draw.conftest import CONFIG, picture
from eventful_vitdet.cli import annotate_command
from eventful_vitdet.cli.annotate_command import main
from eventful_vitdet.draw import annotated_batch
from eventful_vitdet.video import probe_video

LENGTHS = {"a": 4, "b": 9, "c": 6, "d": 7}
SIZES = {"c": (96, 64)}
CUT = 5
"""Frame at which input b shows another scene."""


@pytest.fixture
def inputs(tmp_path):
    random = np.random.default_rng(0)
    for name, length in LENGTHS.items():
        (tmp_path / name).mkdir()
        for index in range(length):
            image = picture(index + len(name), *SIZES.get(name, (64, 96)))
            if name == "b" and index >= CUT:
                image = np.random.default_rng(1).integers(0, 256, image.shape, dtype=np.uint8)
            image = cv2.add(image, random.integers(0, 3, image.shape, dtype=np.uint8))
            cv2.imwrite(str(tmp_path / name / f"{index}.png"), image)
    return [str(tmp_path / name) for name in LENGTHS]


@pytest.fixture
def predict(repository, tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    weights = str(repository / "weights/demo_vitdet_tiny.safetensors")

    def call(sources: list[str], output: str, save_json: str) -> int:
        words = ["--config-file", str(repository / CONFIG), "--input", *sources, "--output", output]
        words += ["--save-json", save_json, "--no-window", "--budget", "32", "MODEL.WEIGHTS", weights]
        return main([*words, "MODEL.DEVICE", "cpu", "MODEL.EVENTFUL.CONTROLLER.SCENE_CUT", "3.0"])

    return call


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_batch_gives_what_single_runs_give(predict, inputs, tmp_path, capsys):
    assert predict(inputs, str(tmp_path / "out"), str(tmp_path / "out")) == 0
    assert f"4 inputs: 100%|██████████| {sum(LENGTHS.values())}/" in capsys.readouterr().err
    for name, source in zip(LENGTHS, inputs):
        assert predict([source], str(tmp_path / f"one_{name}.mp4"), str(tmp_path / f"one_{name}.jsonl")) == 0
        together, alone = lines(tmp_path / "out" / f"{name}.jsonl"), lines(tmp_path / f"one_{name}.jsonl")
        assert len(together) == len(alone) == LENGTHS[name]
        for found, expected in zip(together, alone):
            for key in ("frame", "flushed", "scene_cut", "budget", "gflops", "width", "height"):
                assert found[key] == expected[key], (name, found["frame"], key)
            assert len(found["detections"]) == len(expected["detections"])
            for one, other in zip(found["detections"], expected["detections"]):
                assert one["class"] == other["class"]
                assert one["score"] == pytest.approx(other["score"], abs=2e-4)
                assert one["box"] == pytest.approx(other["box"], abs=0.05)
        assert probe_video(str(tmp_path / "out" / f"{name}.mp4")).num_frames == LENGTHS[name]
    flushed = {
        name: [line["frame"] for line in lines(tmp_path / "out" / f"{name}.jsonl") if line["flushed"]]
        for name in LENGTHS
    }
    assert flushed["a"] == flushed["c"] == flushed["d"] == [0]
    assert flushed["b"] == [0, CUT + 1]


def test_one_that_breaks_does_not_stop_the_others(predict, inputs, tmp_path, capsys):
    broken = tmp_path / "b" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    assert predict(inputs, str(tmp_path / "out"), str(tmp_path / "out")) == 1
    shown = capsys.readouterr().err
    assert "3.png" in shown and "1 of 4 videos could not be read whole" in shown
    counts = {name: probe_video(str(tmp_path / "out" / f"{name}.mp4")).num_frames for name in LENGTHS}
    assert counts == {**LENGTHS, "b": 3}


def test_mistakes_are_found_before_anything_is_computed(predict, inputs, tmp_path, capsys):
    assert predict([*inputs, inputs[1]], str(tmp_path / "out"), str(tmp_path / "out")) == 1
    assert f"{inputs[1]}: is named twice" in capsys.readouterr().err
    assert predict([*inputs, str(tmp_path / "none.mp4")], str(tmp_path / "out"), str(tmp_path / "out")) == 1
    assert "none.mp4: there is no such file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_batch_is_told_of_when_it_is_done(predict, inputs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(annotate_command, "TOGETHER", 2)
    broken = tmp_path / "d" / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    told = []
    real = annotated_batch.annotate_batch

    def batch(*arguments):
        told.append(capsys.readouterr().out)
        return real(*arguments)

    monkeypatch.setattr(annotated_batch, "annotate_batch", batch)
    assert predict(inputs, str(tmp_path / "out"), str(tmp_path / "out")) == 1
    told.append(capsys.readouterr().out)
    files = [[line.split(":")[0] for line in text.splitlines() if ".mp4: " in line] for text in told]
    assert files == [[], *([str(tmp_path / "out" / f"{name}.mp4") for name in names] for names in ("ab", "cd"))]
