"""Command lines: what they mean, and what they refuse."""

import argparse

import pytest
from eventful_vitdet.cli.arguments import (
    KEYS_WITHOUT_SECTION,
    add_pairs,
    command_parser,
    factor,
    parse_training,
    score,
    training_parser,
    whole_number,
)
from eventful_vitdet.config_files import build_cfg


def parse(*words):
    return parse_training(training_parser(), list(words))


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


def test_a_model_of_a_known_name_has_its_weights():
    args = parse("--model", "demo/vitdet_tiny", "--eval-only", "SEED", "1")
    assert args.config_file == "demo/vitdet_tiny" and args.opts[0] == "MODEL.WEIGHTS" and args.opts[2:] == ["SEED", "1"]
    assert args.opts[1].endswith("demo_vitdet_tiny.safetensors")
    assert build_cfg(args.config_file, args.opts).MODEL.WEIGHTS == args.opts[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--eval-only", "--budgets"], "--budgets needs"),
        (["--eval-only", "--budgets", "-3"], "found '-3'"),
        (["--eval-only", "--budgets", "dense", "-3"], "found '-3'"),
        (["--eval-only", "--budgets", "dense", "0.5", "MODEL.DEVICE", "cpu"], "whole numbers of tokens, found '0.5'"),
        (["--budgets", "64"], "add --eval-only"),
        # argparse would take each of these for its own and leave the budgets out.
        (["--eval-only", "--budgets=64"], "write --budgets in full and once"),
        (["--eval-only", "--budget", "64"], "write --budgets in full and once"),
        (["--eval-only", "--budgets", "64", "--budgets", "8"], "write --budgets in full and once"),
        (["SOLVER.MAX_ITER", "6", "--resume"], "--resume comes after KEY VALUE pairs; put options before them"),
        (["--eval-only", "--num-gpus", "0"], "--num-gpus and --num-machines are 1 or larger"),
        (["--eval-only", "--num-machines", "-1"], "--num-gpus and --num-machines are 1 or larger"),
        (["--num-machines", "2", "--machine-rank", "2"], "--machine-rank counts the 2 machines from 0, found 2"),
        (["--eval-only", "--root", "somewhere"], "--root needs --test-json"),
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


@pytest.mark.parametrize(
    ("convert", "good", "bad"),
    [
        (whole_number(1), {"7": 7, "1": 1}, ["0", "-1", "1.5", "", "x"]),
        (score, {"0": 0.0, "0.25": 0.25, "1": 1.0}, ["nan", "-0.1", "30", "x"]),
        (factor, {"2": 2.0, "0.5": 0.5}, ["0", "inf", "nan", "100", "x"]),
    ],
)
def test_types_of_arguments(convert, good, bad):
    assert {text: convert(text) for text in good} == good
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is not a "):
            convert(text)


def test_every_command_can_say_more_or_less():
    parser = command_parser("what it does")
    assert parser.parse_args([]).verbosity == 0 and not parser.parse_args([]).traceback
    assert parser.parse_args(["-v"]).verbosity == 1 and parser.parse_args(["--quiet"]).verbosity == -1
    with pytest.raises(SystemExit):
        parser.parse_args(["-v", "-q"])
    assert parse("-q", "--eval-only", "SEED", "1").verbosity == -1


def test_all_keys_without_a_section_are_known():
    """They would be taken for inputs."""
    cfg = build_cfg("demo/vitdet_tiny", [])
    assert {name for name, value in cfg.items() if not isinstance(value, dict)} <= set(KEYS_WITHOUT_SECTION)


@pytest.mark.parametrize("option", ["--root", "--test-root"])
def test_two_names_of_the_root_of_a_file(option):
    words = ["--config-file", "f.yaml", "--eval-only", "--test-json", "set.json", option, "here"]
    assert parse_training(training_parser(), words).root == "here"


def test_only_what_is_needed_is_called_missing(capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    add_pairs(parser)
    with pytest.raises(SystemExit):
        parser.parse_intermixed_args([])
    assert capsys.readouterr().err.strip().endswith("required: folder")
    assert parser.parse_intermixed_args(["a", "SEED", "1"]).opts == ["SEED", "1"]
    assert parser.parse_intermixed_args(["a"]).opts == []
