"""Arguments, configuration files and error messages of the tools."""

import pytest
import torch
from eventful_vitdet.checkpoint import CheckpointError
from eventful_vitdet.command_line import argument_parser, build_cfg, check_output_dir, parse_arguments, run


def parse(*words):
    return parse_arguments(argument_parser(), list(words))


@pytest.mark.parametrize(
    ("words", "budgets", "options"),
    [
        (["--eval-only", "--budgets", "dense", "64", "128"], ["dense", "64", "128"], []),
        (["--eval-only", "--budgets", "dense", "0", "MODEL.DEVICE", "cpu"], ["dense", "0"], ["MODEL.DEVICE", "cpu"]),
        (["--budgets", "64", "64", "--eval-only", "SEED", "1"], ["64"], ["SEED", "1"]),
        (["--eval-only", "SEED", "1"], [], ["SEED", "1"]),
    ],
)
def test_budgets_end_at_the_first_other_word(words, budgets, options):
    args = parse("--config-file", "f.yaml", *words)
    assert args.budgets == budgets
    assert args.opts == options
    assert args.eval_only


@pytest.mark.parametrize(
    "words", [["--eval-only", "--budgets"], ["--eval-only", "--budgets", "-3"], ["--budgets", "64"]]
)
def test_bad_budgets(words):
    with pytest.raises(SystemExit):
        parse(*words)


def test_device_is_resolved_once():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert build_cfg("").MODEL.DEVICE == expected
    assert build_cfg("", ["MODEL.DEVICE", "cpu"]).MODEL.DEVICE == "cpu"


def test_every_configuration_file_loads(repository):
    from eventful_vitdet.modeling.backbone import build_policy

    files = sorted((repository / "configs").rglob("*.yaml"))
    assert len(files) >= 6
    for file in files:
        cfg = build_cfg(str(file))
        assert cfg.MODEL.META_ARCHITECTURE == "VideoRCNN"
        build_policy(cfg)


def test_packaged_configuration_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert build_cfg("demo/vitdet_tiny.yaml").MODEL.VIT.DEPTH == 6


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ("absent.yaml", [], "there is no file absent.yaml"),
        ("", ["MODEL.VIT.DEPTHS", "3"], "MODEL.VIT.DEPTHS"),
        ("", ["MODEL.VIT.DEPTH"], "KEY VALUE pairs"),
        ("", ["MODEL.VIT.DEPTH", "three"], "MODEL.VIT.DEPTH"),
    ],
)
def test_bad_configuration_is_one_line(file, options, message, capsys):
    assert run(lambda: build_cfg(file, options)) == 1
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


def test_output_dir_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "output"
    assert run(lambda: check_output_dir(str(folder))) == 1
    assert f"OUTPUT_DIR = {folder} cannot be written to" in capsys.readouterr().err


def test_interruption_and_errors_have_exit_codes(capsys):
    def interrupt():
        raise KeyboardInterrupt

    def misfit():
        raise CheckpointError("MODEL.WEIGHTS: x")

    assert run(interrupt) == 130
    assert run(misfit) == 1
    assert run(lambda: None) == 0
    with pytest.raises(ZeroDivisionError):  # a defect keeps its traceback
        run(lambda: 1 / 0)
