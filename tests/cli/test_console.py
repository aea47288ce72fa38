"""How a command ends, and what it shows: one line for a mistake, a traceback for a defect, and all of it in log.txt."""

import argparse
import io
import logging
import os
import subprocess
import sys
import warnings

import pytest
from detectron2.utils.logger import setup_logger
from eventful_vitdet.cli.console import BROKEN_PIPE, run, take_console
from eventful_vitdet.errors import CheckpointError, ConfigError, EvaluationError, FileError, ToolError, VideoReadError
from tqdm import tqdm

LOUD = argparse.Namespace(verbosity=1, traceback=False)
QUIET = argparse.Namespace(verbosity=-1, traceback=False)


def fail(error: BaseException):
    def main() -> None:
        raise error

    return main


def test_exit_codes(capsys):
    assert run(lambda: None) == 0
    assert run(fail(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (CheckpointError("MODEL.WEIGHTS: x"), "MODEL.WEIGHTS: x"),
        (ConfigError("SEED is a number"), "SEED is a number"),
        (VideoReadError("a.mp4: damaged\n  at frame 3"), "a.mp4: damaged at frame 3"),
        (FileError(13, "Permission denied", "/out/x"), "/out/x: Permission denied"),
        (OSError(28, "No space left on device"), "No space left on device (is the disk that holds OUTPUT_DIR full?)"),
    ],
)
def test_what_the_user_can_put_right_is_one_line(capsys, error, line):
    assert run(fail(error)) == 1
    assert capsys.readouterr().err == f"error: {line}\n"


@pytest.mark.parametrize(
    "error",
    [ValueError("SEED"), KeyError("x"), FileNotFoundError(2, "No such file", "/x"), RuntimeError("shapes"), OSError(5)],
)
def test_anything_else_is_a_defect(capsys, error):
    with pytest.raises(type(error)):
        run(fail(error))
    assert "error:" not in capsys.readouterr().err  # Python shows the traceback


def test_tracebacks_are_in_the_log_and_on_demand(tmp_path, capsys):
    setup_logger(str(tmp_path), name="eventful_vitdet")
    assert run(fail(ToolError("a mistake"))) == 1
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 / 0)
    log = (tmp_path / "log.txt").read_text()
    assert log.count("Traceback (most recent call last)") == 2
    assert "ToolError: a mistake" in log and "ZeroDivisionError: division by zero" in log
    shown = capsys.readouterr()
    assert shown.err == "error: a mistake\n" and shown.out == ""
    assert run(fail(ToolError("a mistake")), argparse.Namespace(verbosity=0, traceback=True)) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback") and "in main" in shown and shown.endswith("error: a mistake\n")


def chat() -> None:
    """Messages of all kinds, as a run logs them."""
    logging.getLogger("eventful_vitdet.part").info("ours")
    logging.getLogger("eventful_vitdet.part").debug("detail")
    logging.getLogger("detectron2.engine.defaults").info("Model: many lines")
    logging.getLogger("detectron2.utils.events").info("iter: 19")
    logging.getLogger("fvcore.common.checkpoint").warning("theirs")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old function", DeprecationWarning, stacklevel=2)


@pytest.mark.parametrize(
    ("options", "out", "err"),
    [
        (argparse.Namespace(verbosity=0, traceback=False), "ours\niter: 19\n", "warning: theirs\n"),
        (QUIET, "", "warning: theirs\n"),
        (LOUD, "ours\ndetail\nModel: many lines\niter: 19\n", "warning: theirs\nwarning: "),
    ],
)
def test_the_screen_shows_little_and_the_log_all(tmp_path, capsys, options, out, err):
    for name in ("eventful_vitdet", "detectron2", "fvcore", "py.warnings"):
        setup_logger(str(tmp_path), name=name)
    assert run(chat, options) == 0
    shown = capsys.readouterr()
    assert shown.out == out and shown.err.startswith(err) and ("old function" in shown.err) == (options is LOUD)
    log = (tmp_path / "log.txt").read_text()
    for text in ("ours", "detail", "Model: many lines", "iter: 19", "theirs", "DeprecationWarning: old function"):
        assert text in log, text


def test_messages_do_not_steer_the_terminal(capsys):
    assert run(lambda: logging.getLogger("eventful_vitdet").warning("the name %s", "\x1b[31mred")) == 0
    assert capsys.readouterr().err == "warning: the name \\x1b[31mred\n"


def test_only_the_first_process_shows_anything(capsys):
    take_console(rank=1)
    chat()
    assert capsys.readouterr() == ("", "")


def test_a_screen_that_is_gone_ends_nothing(monkeypatch):
    class Closed:
        def write(self, text: str) -> None:
            raise BrokenPipeError

        flush = write

    monkeypatch.setattr("sys.stdout", Closed())
    assert run(chat) == 0


def test_a_line_does_not_begin_behind_a_progress_bar(capsys):
    take_console()
    with tqdm(total=2, desc="frames", ascii=True) as bar:
        bar.update()
        capsys.readouterr()
        logging.getLogger("eventful_vitdet").warning("look")
        logging.getLogger("eventful_vitdet").debug("only for the log")
        shown = capsys.readouterr().err
    before, line, after = shown.partition("warning: look\n")
    assert before.endswith("\r") and not before.strip() and "frames:" in after
    assert shown.count("frames:") == 1  # what is not shown leaves the bar where it is


def test_errors_of_other_processes_are_errors_of_the_user():
    assert run(fail(EvaluationError("x"))) == run(fail(ToolError("x"))) == 1


def test_names_that_the_screen_cannot_show(monkeypatch, capsys):
    """They are shown as escapes, and end neither the message nor the command, nor do they silence what follows."""
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding="ascii"))

    def main() -> None:
        logging.getLogger("eventful_vitdet.part").info("frame 3: caf\u00e9\udcff.png")
        logging.getLogger("eventful_vitdet.part").info("the next one")
        print("caf\u00e9\udcff.mp4")
        sys.stdout.flush()

    assert run(main) == 0
    assert written.getvalue().decode().splitlines() == [
        "frame 3: caf\\xe9\\udcff.png",
        "the next one",
        "caf\\xe9\\udcff.mp4",
    ]


@pytest.mark.parametrize(("lines", "code"), [(1, 0), (100_000, BROKEN_PIPE)])
def test_output_that_nobody_reads(repository, lines, code):
    """As by `| head`: neither a traceback nor an exception that Python ignores when it ends."""
    script = f"""
import os, sys
from eventful_vitdet.cli import console
console.importlib.import_module = lambda name: None
def main():
    sys.stdin.readline()
    for _ in range({lines}):
        print("a line")
sys.exit(console.run(main))
"""
    environment = {**os.environ, "PYTHONPATH": str(repository / "projects" / "EventfulViTDet")}
    environment.pop("PYTHONUNBUFFERED", None)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, **pipes)
    process.stdout.close()
    process.stdin.write(b"\n")
    process.stdin.close()
    assert process.stderr.read() == b"" and process.wait(60) == code
    process.stderr.close()
