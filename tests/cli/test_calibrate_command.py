"""`eventful-vitdet calibrate`: what it writes, what runs with it, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from draw.conftest import CONFIG, OPTIONS
from eventful_vit import SharedBudget
from eventful_vitdet.cli import calibrate_command
from eventful_vitdet.config_files import build_cfg
from eventful_vitdet.errors import ConfigError
from eventful_vitdet.policy_files import read_policy_file

PAIRS = [word for pair in OPTIONS.items() for word in pair]


@pytest.fixture
def words(repository, weights, images, tmp_path) -> list[str]:
    """A command line without a target."""
    model = ["--config-file", str(repository / CONFIG), "--weights", weights, "--input", str(images)]
    return [*model, "--frames", "3", "--rounds", "1", "--output", str(tmp_path / "budgets.json"), *PAIRS]


def configuration(repository: Path, file: Path, *pairs: object):
    policy = ["MODEL.EVENTFUL.POLICY", "calibrated", "MODEL.EVENTFUL.POLICY_FILE", str(file)]
    return build_cfg(str(repository / CONFIG), [*PAIRS, *policy, *pairs])


def test_a_detector_runs_with_the_budgets(words, repository, tmp_path, capsys):
    assert calibrate_command.main([*words, "--like", "6"]) == 0
    file = tmp_path / "budgets.json"
    shown = capsys.readouterr()
    *others, last = shown.out.splitlines()
    assert last.startswith(f"{file}: ") and "GFlops per later frame" in last
    assert not any("gate" in line or "round" in line for line in others)
    assert shown.err.count("\n") == 1 and "calibrating: 100%" in shown.err and "round 1: features" in shown.err  # a bar
    found = read_policy_file(str(file))
    assert found.change <= found.uniform_change
    pyramid = ("MODEL.EVENTFUL.PYRAMID.ENABLED", True)
    model = build_model(configuration(repository, file, *pyramid))
    assert model.vit.policy == found.policy()
    with pytest.raises(ConfigError, match=rf"POLICY_FILE = {file}: made for another model: it has budgets for"):
        build_model(configuration(repository, file, "MODEL.VIT.DEPTH", 1, "MODEL.VIT.WINDOW_BLOCKS", "()"))


def test_a_detector_runs_with_a_shared_budget(words, repository, tmp_path, capsys):
    assert calibrate_command.main([*words, "--like", "6", "--shared"]) == 0
    file = tmp_path / "budgets.json"
    assert f"{file}: a shared budget of " in capsys.readouterr().out.splitlines()[-1]
    budget = read_policy_file(str(file)).policy()
    model = build_model(configuration(repository, file, "MODEL.EVENTFUL.PYRAMID.ENABLED", True)).eval()
    assert model.vit.policy == budget and isinstance(budget, SharedBudget)
    image = torch.randint(0, 256, (3, 128, 160), dtype=torch.uint8)
    with torch.no_grad():
        for number in range(3):
            image[:, 8 * number : 8 * number + 16, 32:48] = 0
            model([{"image": image, "video_id": 1, "frame_id": number}])
    trace = model.state.trace
    tokens = trace.vit.grid[0] * trace.vit.grid[1]
    usual = budget.shares[model.vit.gate_names[-1]]
    assert trace.pyramid.gates["pyramid"].selection.counts == (int(usual * tokens),)
    counts = {name: gate.selection.counts[0] for name, gate in trace.vit.gates.items()}
    assert any(counts.values()) and all(count <= 4 * budget.shares[name] * tokens for name, count in counts.items())
    with pytest.raises(ConfigError, match=rf"POLICY_FILE = {file}: made for another model: it has budgets for"):
        build_model(configuration(repository, file, "MODEL.VIT.DEPTH", 1, "MODEL.VIT.WINDOW_BLOCKS", "()"))


def test_a_shared_budget_is_a_number_of_operations(words, capsys):
    with pytest.raises(SystemExit):
        calibrate_command.main([*words, "--max-loss", "1", "--shared"])
    assert "--shared holds a number of operations: it needs --target-gflops or --like" in capsys.readouterr().err


def test_a_run_that_fails_leaves_the_file_as_it_was(words, tmp_path, capsys, monkeypatch):
    file = tmp_path / "budgets.json"
    file.write_text("before")
    assert calibrate_command.main([*words, "--target-gflops", "1e-9"]) != 0
    assert "1e-09 GFlops are out of reach" in capsys.readouterr().err
    assert calibrate_command.main([*words, "--like", "6", "--frames", "99"]) != 0
    assert "has 8 frames from --start 0 on, --frames 99 are needed" in capsys.readouterr().err
    monkeypatch.setattr("eventful_vit.calibrate", interrupt)
    assert calibrate_command.main([*words, "--like", "6"]) != 0
    assert file.read_text() == "before" and [path.name for path in tmp_path.glob("*budgets*")] == ["budgets.json"]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["folder", "file/budgets.json"])
def test_a_file_that_cannot_be_written_is_told_before_the_work(words, name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("eventful_vitdet.predictor.load_detector", interrupt)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    path = str(tmp_path / name)
    assert calibrate_command.main([*words, "--like", "6", "--output", path]) == 1
    assert path in capsys.readouterr().err


def interrupt(*args, **kwargs):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("{", "Expecting property name"),
        ("[" * 100_000, "recursion"),
        (json.dumps({"format": 7}), 'expected an entry "format": 1'),
    ],
)
def test_what_is_no_file_of_budgets(content, message, tmp_path, repository):
    file = tmp_path / "budgets.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=rf"MODEL.EVENTFUL.POLICY_FILE = {file}: .*{message}"):
        build_model(configuration(repository, file))
    with pytest.raises(ConfigError, match="POLICY_FILE is empty: name the file that `eventful-vitdet calibrate` wrote"):
        build_model(configuration(repository, ""))


def test_videos_are_spread_over_all_that_are_there():
    assert calibrate_command.spread(range(10), 4) == [0, 2, 5, 7]
    assert calibrate_command.spread("ab", 4) == ["a", "b"]


def test_a_target_is_needed(words, capsys):
    with pytest.raises(SystemExit):
        calibrate_command.main(words)
    assert "one of the arguments --target-gflops --like --max-loss is required" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["nan", "inf", "0", "-1"])
@pytest.mark.parametrize("option", ["--target-gflops", "--max-loss"])
def test_a_target_is_a_number_above_0(option, value, capsys):
    with pytest.raises(SystemExit):
        calibrate_command.parse(["a.mp4", f"{option}={value}"])
    assert f"argument {option}: '{value}' is not a number above 0" in capsys.readouterr().err


def test_pairs_may_follow_the_videos():
    inputs = ["a.mp4", "b.mp4", "MODEL.DEVICE", "cpu"]
    for words in (["--like", "4", "--input", *inputs], [*inputs, "--like", "4"], ["--like", "4", *inputs]):
        arguments = calibrate_command.parse(words)
        assert (arguments.input, arguments.opts) == (["a.mp4", "b.mp4"], ["MODEL.DEVICE", "cpu"])


def test_an_input_is_needed(capsys):
    with pytest.raises(SystemExit):
        calibrate_command.main(["--like", "4"])
    assert "give a video, a folder" in capsys.readouterr().err
