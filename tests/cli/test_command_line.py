"""Arguments, configuration files and error messages of the tools."""

import pytest
import torch
from eventful_vitdet.cli.command_line import (
    argument_parser,
    build_cfg,
    check_output_dir,
    parse_arguments,
    run,
)
from eventful_vitdet.errors import CheckpointError, VideoReadError, describe_error


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
    ("words", "message"),
    [
        (["--eval-only", "--budgets"], "--budgets needs"),
        (["--eval-only", "--budgets", "-3"], "found '-3'"),
        (["--budgets", "64"], "add --eval-only"),
        # argparse would take each of these for its own and leave the budgets out.
        (["--eval-only", "--budgets=64"], "--budgets is written in full, once"),
        (["--eval-only", "--budget", "64"], "--budgets is written in full, once"),
        (["--eval-only", "--budgets", "64", "--budgets", "8"], "--budgets is written in full, once"),
        (["--eval-only", "--num-gpus", "0"], "--num-gpus and --num-machines are 1 or larger"),
        (["--eval-only", "--num-machines", "-1"], "--num-gpus and --num-machines are 1 or larger"),
        (["--eval-only", "--test-root", "somewhere"], "--test-root belongs to --test-json"),
    ],
)
def test_bad_arguments(words, message, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(*words)
    assert caught.value.code not in (0, None)
    assert message in f"{caught.value.code} {capsys.readouterr().err}"


def test_runs_at_the_same_time_do_not_share_a_port():
    assert parse("--num-gpus", "2").dist_url == "auto"
    assert parse("--num-gpus", "2", "--dist-url", "tcp://127.0.0.1:5000").dist_url == "tcp://127.0.0.1:5000"
    assert parse("--num-machines", "2").dist_url != "auto"  # they have to agree on one


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


def test_integers_are_numbers_too(tmp_path):
    """yacs takes no 150 where the default is a 100.0; whoever writes it means it."""
    keys = "MODEL.EVENTFUL.CONTROLLER"
    cfg = build_cfg("", [f"{keys}.TARGET_MS", "150", "SOLVER.EMA_DECAY", "0"])
    controller = cfg.MODEL.EVENTFUL.CONTROLLER
    assert (controller.TARGET_MS, type(controller.TARGET_MS), type(cfg.SOLVER.EMA_DECAY)) == (150, float, float)
    file = tmp_path / "file.yaml"
    file.write_text("MODEL: {EVENTFUL: {R: 9, CONTROLLER: {TARGET_MS: -3}}}\nSOLVER: {BASE_LR: 1}")
    base = tmp_path / "more.yaml"
    base.write_text("_BASE_: file.yaml\nTEST: {VID_SCORE_FLOOR: 0}")
    cfg = build_cfg(str(base))
    values = (cfg.MODEL.EVENTFUL.CONTROLLER.TARGET_MS, cfg.SOLVER.BASE_LR, cfg.TEST.VID_SCORE_FLOOR)
    assert values == (-3, 1, 0) and {type(value) for value in values} == {float}
    assert type(cfg.MODEL.EVENTFUL.R) is int


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ("absent.yaml", [], "there is no file absent.yaml"),
        ("", ["MODEL.VIT.DEPTHS", "3"], "MODEL.VIT.DEPTHS"),
        ("", ["MODEL.VIT.DEPTH"], "KEY VALUE pairs"),
        ("", ["MODEL.VIT.DEPTH", "three"], "MODEL.VIT.DEPTH"),
        ("", ["MODEL.VIT", "5"], "for config key: MODEL.VIT"),
        ("", ["MODEL.EVENTFUL.THRESHOLD", "True"], "MODEL.EVENTFUL.THRESHOLD"),
        ("", ["MODEL.EVENTFUL.R", "2.5"], "MODEL.EVENTFUL.R"),
        ("", ["sixty", "MODEL.VIT.DEPTH", "3"], "'sixty' is no option"),
        ("", ["MODEL.VIT.DEPTH", "3", "--resume", "--eval-only"], "'--resume' is no option"),
        ("", ["MODEL.DEVICE", "abacus"], "MODEL.DEVICE = 'abacus' is no device"),
        ("", ["MODEL.DEVICE", "cuda:99"], "MODEL.DEVICE = 'cuda:99', but PyTorch finds"),
    ],
)
def test_bad_configuration_is_one_line(file, options, message, capsys):
    assert run(lambda: build_cfg(file, options)) == 1
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("MODEL: [1, 2\nB: }", "is not valid yaml"),
        ("WEIGHTS: !!python/object/apply:print ['code from a configuration']", "is not valid yaml"),
        ("", "mapping"),
        ("- 1\n- 2", "mapping"),
        ("MODEL: 5", "file.yaml: "),
        ("SEED: many", "for config key: SEED"),
        ("MODEL:\n  FOO: 1", "MODEL.FOO"),
        ("_BASE_: file.yaml", "its _BASE_ leads back to the file itself"),
        ("_BASE_: absent.yaml", "absent.yaml"),
        (b"\x80\x02\xff", "file.yaml"),
    ],
)
def test_bad_configuration_file_is_one_line(tmp_path, content, message, capsys):
    file = tmp_path / "file.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert run(lambda: build_cfg(str(file))) == 1
    output = capsys.readouterr()
    assert message in output.err and output.err.startswith("error: ") and output.err.count("\n") == 1
    assert "code from" not in output.out


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


def test_errors_are_described_in_one_line():
    assert describe_error(KeyError("data set 'x' is not registered")) == "data set 'x' is not registered"
    assert describe_error(ValueError("first\n  second  line\n")) == "first second  line"
    assert describe_error(EOFError()) == "EOFError"
    worker = (
        "Caught VideoReadError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  ...\n"
    )
    assert describe_error(VideoReadError(worker + "data.VideoReadError: a: b.mp4: damaged\n")) == "a: b.mp4: damaged"
    assert "OUTPUT_DIR" in describe_error(OSError(28, "No space left on device"))


def test_plain_detectron2_use_needs_no_tool(repository):
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model
    from eventful_vitdet import add_eventful_vitdet_config

    cfg = get_cfg()
    add_eventful_vitdet_config(cfg)
    cfg.merge_from_file(str(repository / "configs" / "demo" / "vitdet_tiny.yaml"))
    assert type(build_model(cfg)).__name__ == "VideoRCNN"
