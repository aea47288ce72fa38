"""The command line as a user runs it: render, train, resume, evaluate; and what it says when something is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from eventful_vitdet.cli import export_weights_command, train_command
from kept_loggers import kept_loggers
from safetensors.torch import load_file

SMALL_MODEL = {
    "MODEL.DEVICE": "cpu",
    "MODEL.VIT.IMG_SIZE_HW": "[128,160]",
    "MODEL.VIT.EMBED_DIM": "32",
    "MODEL.VIT.DEPTH": "2",
    "MODEL.VIT.NUM_HEADS": "2",
    "MODEL.VIT.WINDOW_BLOCKS": "[0]",
    "MODEL.SIMPLE_PYRAMID.OUT_CHANNELS": "16",
    "MODEL.ROI_BOX_HEAD.FC_DIM": "32",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": "0.0",
    "INPUT.CROP_PIXELS": "[128,160]",
    "SOLVER.IMS_PER_BATCH": "2",
    "SOLVER.OPTIMIZER": "muon",
}


def options(**more) -> list[str]:
    settings = {**SMALL_MODEL, **{key.replace("__", "."): str(value) for key, value in more.items()}}
    return [word for pair in settings.items() for word in pair]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, render_videos) -> Path:
    """A folder with a rendered data set, as the current directory of the commands."""
    folder = tmp_path_factory.mktemp("workspace")
    for split in ("train", "test"):
        render_videos(folder / "datasets" / "demo_vid", split, 3, 6, "--size", "160x128")
    return folder


def command(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "DETECTRON2_DATASETS": "datasets", "OMP_NUM_THREADS": "2", **variables}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def train_net(folder: Path, repository: Path, *words: str, **variables: str) -> subprocess.CompletedProcess:
    config = ["--config-file", str(repository / "configs" / "demo" / "vitdet_tiny.yaml")]
    return command(folder, str(repository / "tools" / "train_net.py"), *config, *words, **variables)


def train_here(repository: Path, *words: str) -> int:
    """The same in this process, and in its current folder."""
    return train_command.main(["--config-file", str(repository / "configs" / "demo" / "vitdet_tiny.yaml"), *words])


@pytest.fixture(scope="module")
def trained(workspace, repository) -> Path:
    """Twelve iterations in two runs, the second resumed, and evaluated at its end. The first runs in this process: a
    new one imports for seconds."""
    more = {"OUTPUT_DIR": "output", "SOLVER__CHECKPOINT_PERIOD": 6, "SOLVER__WARMUP_ITERS": 2}
    with pytest.MonkeyPatch.context() as patch, kept_loggers():
        patch.chdir(workspace)
        assert train_here(repository, *options(SOLVER__MAX_ITER=6, DATASETS__TEST="()", **more)) == 0
    done = train_net(workspace, repository, "--resume", *options(SOLVER__MAX_ITER=12, **more))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Starting training from iteration 6" in done.stdout + done.stderr
    return workspace / "output"


def test_training_writes_checkpoints_and_metrics(trained):
    assert (trained / "last_checkpoint").read_text() == "model_final.pth"
    weights = torch.load(trained / "model_ema.pth", weights_only=True)["model"]
    assert all(torch.isfinite(value).all() for value in weights.values())
    lines = [json.loads(line) for line in (trained / "metrics.json").read_text().splitlines()]
    steps = [line["iteration"] for line in lines if "total_loss" in line]
    assert steps[-1] >= 11
    assert any("bbox/AP50" in line for line in lines)  # the evaluation at the end of training


def test_evaluation_at_budgets(trained, workspace, repository, monkeypatch, capsys):
    monkeypatch.chdir(workspace)
    budgets = ["--eval-only", "--budgets", "dense", "12", "80"]
    weights = options(OUTPUT_DIR="evaluated", MODEL__WEIGHTS="output/model_ema.pth")
    assert train_here(repository, *budgets, *weights) == 0
    folder = workspace / "evaluated" / "inference"
    combined = json.loads((folder / "budgets.json").read_text())
    assert [result["policy"] for result in combined] == ["dense", "top-r 12", "top-r 80"]
    assert combined == [json.loads((folder / name / "results.json").read_text()) for name in ("dense", "12", "80")]
    dense, few, everything = combined
    assert dense["frames"] == 18 and dense["videos"] == 3
    assert few["gflops_per_frame"]["backbone"]["later"] < dense["gflops_per_frame"]["backbone"]["later"]
    assert few["gflops_per_frame"]["backbone"]["flush"] == dense["gflops_per_frame"]["backbone"]["flush"]
    # r = N gives the dense model's detections, to rounding: AP is a step function of the scores' order.
    assert everything["bbox"]["AP50"] == pytest.approx(dense["bbox"]["AP50"], abs=0.5)
    table = (folder / "budgets.md").read_text()
    assert table.split("\n\n")[0] in capsys.readouterr().out  # the other tables are in the file
    assert {"dense", "top-r 12", "top-r 80"} <= {line.split("|")[1].strip() for line in table.splitlines() if line}


def test_evaluation_of_a_json_by_path(trained, workspace, repository, monkeypatch):
    monkeypatch.chdir(workspace)
    words = ["--eval-only", "--test-json", "datasets/demo_vid/annotations/test.json"]
    pairs = options(OUTPUT_DIR="by_path", MODEL__WEIGHTS="output/model_final.pth")
    assert train_here(repository, *words, *pairs) == 0
    results = json.loads((workspace / "by_path" / "inference" / "results.json").read_text())
    assert results["policy"] == "top-r 64" and results["frames"] == 18
    assert {"AP", "AP50", "AP75", "AP-disc"} <= set(results["bbox"])


def test_published_weights_are_smaller_and_equal(trained, workspace):
    words = [str(trained / "model_ema.pth"), str(workspace / "exported.safetensors"), "--half"]
    assert export_weights_command.main(words) == 0
    original = torch.load(trained / "model_ema.pth", weights_only=True)["model"]
    exported = load_file(workspace / "exported.safetensors")
    assert set(exported) == set(original)
    for name, value in exported.items():
        assert torch.equal(value, original[name].half() if original[name].is_floating_point() else original[name])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--eval-only", "--test-json", "absent.json"], "absent.json"),
        (["--eval-only", "MODEL.WEIGHTS", "absent.pth"], "absent.pth"),
        (["--eval-only", "OUTPUT_DIR", "/proc/output"], "OUTPUT_DIR"),
    ],
)
def test_mistakes_get_one_line_and_an_exit_code(workspace, repository, words, message, monkeypatch, capsys):
    monkeypatch.chdir(workspace)
    assert train_here(repository, *words, "MODEL.DEVICE", "cpu") == 1
    check_mistake(capsys.readouterr().err, message)


def test_a_mistake_ends_the_process_with_its_exit_code(workspace, repository):
    done = train_net(workspace, repository, "MODEL.EVENTFUL.POLICY", "best", "MODEL.DEVICE", "cpu")
    assert done.returncode == 1
    check_mistake(done.stderr, "MODEL.EVENTFUL.POLICY")


def check_mistake(errors: str, message: str) -> None:
    last = errors.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert "Traceback" not in errors
