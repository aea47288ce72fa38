"""The command on videos with a model of actions: strip, steps in JSON and CSV, and options that are refused."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from eventful_vitdet.cli.annotate_command import main
from eventful_vitdet.video import VideoWriter, iterate_frames, probe_video

MODEL = "synthetic_actions/vivit_tiny"


@pytest.fixture
def video(tmp_path) -> str:
    """Forty frames of a grey disc that moves to the right."""
    path = str(tmp_path / "moving.mp4")
    with VideoWriter(path, 30.0) as writer:
        for number in range(40):
            image = np.full((64, 64, 3), 90, np.uint8)
            image[24:40, number : number + 16] = 220
            writer.write(image)
    return path


@pytest.fixture
def command(repository, video):
    weights = str(repository / "weights" / "synthetic_actions_vivit_tiny.safetensors")
    return lambda *words: main([video, "--model", MODEL, "--weights", weights, "--no-window", *words])


def test_steps_are_written_as_video_json_and_table(command, video, tmp_path, capsys):
    lines, table = tmp_path / "steps.jsonl", tmp_path / "steps.csv"
    options = ("--budget", "0:16,20:4", "--save-json", str(lines), "--save-csv", str(table), "--save-frames", "36")
    assert command("--start", "2", "--end", "38", *options) == 0
    output = tmp_path / "moving_actions.mp4"
    assert "steps, 1 of them computed in full" in capsys.readouterr().out
    assert probe_video(str(output)).num_frames == 36 and (tmp_path / "moving_actions_36.png").is_file()
    [(_, _, image), *_] = iterate_frames(str(output))
    assert image.shape[1] == 320 and image.shape[0] > 320  # with the strip below
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(len(records)))
    assert records[0]["frame"] == 4 and records[0]["flushed"] and records[0]["actions"] is None
    assert records[-1]["budget"] == "top-r 4" and records[2]["budget"] == "top-r 16"
    assert 0 < records[-1]["gflops"] < records[2]["gflops"] < records[0]["gflops"]
    best = records[-1]["actions"]["noun"]
    assert len(best) == 5 and {entry["class"] for entry in best} <= {
        "disc",
        "square",
        "triangle",
        "star",
        "ring",
        "cross",
    }
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["frame"] for row in rows] == [str(record["frame"]) for record in records]
    assert rows[-1]["noun_1"] == best[0]["class"] and float(rows[-1]["noun_1_score"]) == best[0]["score"]
    assert rows[0]["verb_1"] == ""


@pytest.mark.parametrize(
    "options, message",
    [
        (["--track"], "--track is for detectors; synthetic_actions/vivit_tiny recognises actions"),
        (["--show-tokens", "any", "--side-by-side-dense"], "--side-by-side-dense, --show-tokens are for detectors"),
        (["--confidence-threshold", "0.5"], "--confidence-threshold is for detectors"),
        (["--every", "2"], "--every is for detectors"),
    ],
)
def test_options_of_detectors_are_refused(command, tmp_path, capsys, options, message):
    assert command(*options) == 1
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["moving.mp4"]


def test_classes_are_for_detectors(repository, video, capsys):
    assert main(["--model", MODEL, video, "--classes", "disc"]) == 1
    assert "--classes is for detectors" in capsys.readouterr().err


def test_tables_are_for_actions(video, capsys):
    assert main(["--model", "demo/vitdet_tiny", video, "--save-csv", "a.csv"]) == 1
    assert "detections are saved by --save-json" in capsys.readouterr().err


def test_a_video_shorter_than_a_step(command, tmp_path, capsys):
    assert command("--end", "1", "--save-csv", str(tmp_path / "steps.csv")) == 0
    assert "no step" in capsys.readouterr().out and not (tmp_path / "steps.csv").exists()
