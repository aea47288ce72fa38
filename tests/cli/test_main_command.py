"""The installed command: each word leads to its command, under its own name, and needs nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import eventful_vitdet
import numpy as np
import pytest
import torch
from draw.conftest import CONFIG, OPTIONS
from eventful_vitdet.cli import train_command
from eventful_vitdet.cli.arguments import wrap_prose
from eventful_vitdet.cli.main_command import SUBCOMMANDS, main
from eventful_vitdet.known_models import DEFAULT_MODEL, KNOWN_MODELS, weights_settings
from eventful_vitdet.video import probe_video
from video.encoded_videos import encode

PAIRS = [word for pair in OPTIONS.items() for word in pair]


@pytest.fixture
def model(repository, weights) -> list[str]:
    """The words that name a tiny detector."""
    return ["--model", str(repository / CONFIG), "--weights", weights, "--no-window", *PAIRS]


def test_the_word_that_is_missing_or_wrong(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: eventful-vitdet COMMAND") and all(name in text for name in SUBCOMMANDS)
    assert max(map(len, text.splitlines())) <= 80
    assert main([]) == 2 and capsys.readouterr().err == text
    assert main(["--version"]) == 0 and capsys.readouterr().out == f"eventful-vitdet {eventful_vitdet.__version__}\n"
    assert main(["predcit", "street.mp4"]) == 2
    assert capsys.readouterr().err == "eventful-vitdet: there is no command 'predcit'; did you mean predict?\n"
    assert main(["street.mp4"]) == 2 and "choose one of predict, live, advise, evaluate" in capsys.readouterr().err


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_calls_the_command_by_its_name(name, capsys):
    before = list(sys.argv)
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    text = capsys.readouterr().out
    assert end.value.code == 0 and text.startswith(f"usage: eventful-vitdet {name} ")
    assert "python tools/" not in text and sys.argv == before


def test_help_fits_a_terminal_and_leaves_commands_as_they_are():
    text = "What it does, in a line that is too long.\n\n    run street.mp4 --with all options\n\nSee\nthe docs.\n"
    wrapped = "What it does, in a\nline that is too\nlong.\n\n    run street.mp4 --with all options\n\nSee the docs."
    assert wrap_prose(text, 20) == wrapped


LOOK = """
import contextlib, io, json, sys
from eventful_vitdet.cli.main_command import SUBCOMMANDS, main
for words in (["--help"], ["models"], ["no-command"], *([name, "--help"] for name in SUBCOMMANDS)):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        with contextlib.suppress(SystemExit):
            main(words)
print(json.dumps(sorted({"torch", "numpy", "cv2", "detectron2"} & set(sys.modules))))
"""


def test_help_and_lists_need_no_torch():
    """So they are answered at once; importing torch takes seconds."""
    environment = {**os.environ, "PYTHONPATH": str(Path(eventful_vitdet.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", LOOK], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [] and done.stderr == ""


def test_the_entry_point_is_a_door(repository):
    """That imports nothing which takes time, so that Ctrl-C is heard from the first moment on: see test_door.py."""
    code = (Path(eventful_vitdet.__file__).parent / "cli" / "main_door.py").read_text()
    lines = [line for line in code.splitlines() if line and not line.startswith('"""')]
    assert lines == ["from .door import Door", 'door = Door("main_command")']
    script = 'eventful-vitdet = "eventful_vitdet.cli.main_door:door.open"'
    assert script in (repository / "pyproject.toml").read_text()


def test_evaluate_is_an_evaluation_and_train_is_not(monkeypatch):
    given = []
    monkeypatch.setattr(train_command, "run", lambda work, arguments: given.append(arguments) or 0)
    words = ["--config-file", "x.yaml", "--budgets", "dense", "64", "MODEL.WEIGHTS", "w"]
    assert main(["evaluate", *words]) == 0
    assert main(["train", "--config-file", "x.yaml", "SOLVER.MAX_ITER", "3"]) == 0
    assert [arguments.eval_only for arguments in given] == [True, False]
    assert given[0].budgets == ["dense", "64"] and given[0].opts == ["MODEL.WEIGHTS", "w"]


def test_predict_writes_beside_the_video_and_says_where(model, tmp_path, capsys, monkeypatch):
    video = encode(tmp_path / "street.mp4", count=3, b_frames=0)
    assert main(["predict", str(video), *model]) == 0
    output = tmp_path / "street_detections.mp4"
    shown = capsys.readouterr().out
    assert f"writing {output}\n" in shown and f"{output}: 3 frames, 1 of them computed in full" in shown
    assert probe_video(str(output)).num_frames == 3
    # The folder again: what the command itself has written there is no input.
    (tmp_path / "frames").mkdir()
    encode(tmp_path / "other.mp4", count=2, b_frames=0)
    assert main(["predict", str(tmp_path), *model]) == 0
    assert f"{output} is passed over" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.glob("*.mp4")) == [
        "other.mp4",
        "other_detections.mp4",
        "street.mp4",
        "street_detections.mp4",
    ]


def test_names_of_outputs(tmp_path, images, monkeypatch):
    from eventful_vitdet.cli.annotate_command import default_outputs
    from eventful_vitdet.video import open_source, open_sources

    encode(tmp_path / "a.mp4", count=2)
    encode(tmp_path / "a.mkv", count=2)
    two = open_sources([str(tmp_path / "a.mp4"), str(tmp_path / "a.mkv")])
    names = [f"{tmp_path}/a_detections.mp4", f"{tmp_path}/a_detections-2.mp4"]
    assert default_outputs(two) == names
    assert default_outputs([open_source(str(images) + "/")]) == [f"{images}_detections.mp4"]
    assert default_outputs([open_source(f"{images}/*.png")]) == ["video_detections.mp4"]
    assert default_outputs([SimpleNamespace(name="camera 3", paths=[])]) == ["camera_3_detections.mp4"]
    monkeypatch.chdir(images)
    assert default_outputs([open_source(".")]) == [f"{images}_detections.mp4"]


def test_classes_are_chosen_in_pictures_and_lines(model, tmp_path, capsys):
    video, lines = encode(tmp_path / "street.mp4", count=3), tmp_path / "street.jsonl"
    model = [*model, "TEST.DETECTIONS_PER_IMAGE", "100"]  # of all classes
    found = []
    for classes in ([], ["--classes", "Star", "ring"]):
        assert main(["predict", str(video), "--save-json", str(lines), *classes, *model]) == 0
        found.append([json.loads(line)["detections"] for line in lines.read_text().splitlines()])
    assert len({entry["class"] for entry in found[0][0]}) > 2
    wanted = [[entry for entry in entries if entry["class"] in ("star", "ring")] for entries in found[0]]
    assert found[1] == wanted and any(wanted)
    (tmp_path / "street_detections.mp4").unlink()
    capsys.readouterr()
    assert main(["predict", str(video), "--classes", "stars", *model]) == 1
    assert capsys.readouterr().err == "error: the model has no class 'stars'; did you mean 'star'?\n"
    with pytest.raises(SystemExit):
        main(["predict", "--classes", "star", str(video)])
    assert "before --classes" in capsys.readouterr().err and not (tmp_path / "street_detections.mp4").exists()


def test_objects_are_numbered_in_the_lines(model, tmp_path, capsys, monkeypatch):
    from eventful_vitdet import identities

    class Numbers:
        """In place of the library: the detection's number in its frame."""

        def __init__(self, fps: float) -> None:
            assert fps == 15

        def identify(self, found, sequence):
            tracks = np.arange(len(found.scores)) + 1
            tracks[-1] = identities.UNKNOWN
            return replace(found, tracks=tracks)

    video, lines = encode(tmp_path / "street.mp4", count=4), tmp_path / "street.jsonl"
    words = ["predict", str(video), "--track", "--every", "2", "--save-json", str(lines), *model]
    monkeypatch.setattr(identities, "check_tracking", lambda: None)
    monkeypatch.setattr("eventful_vitdet.draw.annotated_video.ObjectTracker", Numbers)
    assert main(words) == 0
    for line in lines.read_text().splitlines():
        tracks = [entry["track"] for entry in json.loads(line)["detections"]]
        assert tracks == [*range(1, len(tracks)), None] and len(tracks) > 2
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "trackers", None)
    (tmp_path / "street_detections.mp4").unlink()
    assert main(words) == 1 and "pip install --no-deps trackers" in capsys.readouterr().err
    assert not (tmp_path / "street_detections.mp4").exists()


def test_without_a_network_one_message_says_what_to_put_where(tmp_path, capsys, monkeypatch):
    def fail(*_args, **_kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr("iopath.common.file_io.download", fail)
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("eventful_vitdet.predictor.build_model", lambda cfg: torch.nn.Linear(1, 1))
    video = encode(tmp_path / "street.mp4", count=2)
    assert main(["predict", str(video)]) == 1
    error = capsys.readouterr().err
    (known,) = [model for model in KNOWN_MODELS if model.name == DEFAULT_MODEL]
    assert error.count("\n") == 1 and error.startswith("error: MODEL.WEIGHTS: ")
    assert known.address() in error and f"put it at {known.local_file()}" in error
    assert str(known.local_file()).startswith(str(tmp_path / "cache"))
    assert not (tmp_path / "street_detections.mp4").exists()


def test_models_says_what_is_here(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    (known,) = [model for model in KNOWN_MODELS if model.name == DEFAULT_MODEL]
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    states = {line.split()[0]: line.split("  ")[-1].strip() for line in lines if "/" in line.split(" ")[0]}
    assert states[DEFAULT_MODEL] == "to be fetched" and states["demo/vitdet_tiny"] == "here"
    assert set(states) == {model.name for model in KNOWN_MODELS}
    known.local_file().parent.mkdir(parents=True)
    known.local_file().touch()
    assert main(["models", DEFAULT_MODEL]) == 0
    shown = capsys.readouterr().out
    assert f"kept at: {known.local_file()} (here)" in shown and known.address() in shown
    assert main(["models", "best"]) == 1 and "there is no model 'best'" in capsys.readouterr().err
    monkeypatch.setattr("eventful_vitdet.known_models.CHECKOUT", tmp_path)  # as where it is installed
    ours = sum(bool(model.file) for model in KNOWN_MODELS)
    assert main(["models"]) == 0 and capsys.readouterr().out.count("in the repository only") == ours >= 2
    # In the folder of a clone, its files serve; elsewhere, the message names them.
    assert weights_settings("demo/vitdet_tiny") == ["MODEL.WEIGHTS", "weights/demo_vitdet_tiny.safetensors"]


def test_live_takes_its_inputs_as_words(capsys):
    from eventful_vitdet.cli.live_command import parse

    arguments = parse(["0", "--model", "demo/vitdet_tiny", "--port", "0", "MODEL.DEVICE", "cpu"])
    assert (arguments.input, arguments.config_file, arguments.opts) == (
        ["0"],
        "demo/vitdet_tiny",
        ["MODEL.DEVICE", "cpu"],
    )
    assert parse(["--input", "0", "--port", "0", "MODEL.DEVICE", "cpu"]).opts == ["MODEL.DEVICE", "cpu"]
    assert parse(["--input", "0", "SEED", "1"]).opts == parse(["0", "SEED", "1"]).opts == ["SEED", "1"]
    several = parse(["a.mp4", "b.mp4", "rtsp://10.0.0.5/x", "0", "MODEL.DEVICE", "cpu"])
    assert several.input == ["a.mp4", "b.mp4", "rtsp://10.0.0.5/x", "0"] and several.opts == ["MODEL.DEVICE", "cpu"]
    with pytest.raises(SystemExit):
        parse(["--port", "0"])
    assert "give a video, a folder, an address, or the number of a camera" in capsys.readouterr().err


def test_a_report_is_named_as_this_command_would_make_it(monkeypatch):
    from eventful_vitdet.cli.arguments import call_of

    assert call_of("report") == "python tools/report.py"
    monkeypatch.setattr(sys, "argv", ["eventful-vitdet evaluate"])
    assert call_of("report") == "eventful-vitdet report" and call_of("make_figure") == "python tools/make_figure.py"
