"""Parts run in processes of their own, a later call continues, and whatever happens is in the report."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import eventful_vitdet.gpu_report as package
import pytest
from eventful_vit import streams
from eventful_vitdet.benchmark import variants
from eventful_vitdet.cli import gpu_report_command
from eventful_vitdet.gpu_report import detector_agreement, gpu_suite, machine, parts
from eventful_vitdet.gpu_report.goals import GOALS
from eventful_vitdet.gpu_report.part_list import PARTS, Part
from eventful_vitdet.gpu_report.parts import DONE, FAILED, OUT_OF_TIME, SKIPPED, run_part
from eventful_vitdet.gpu_report.report_markdown import format_report, table
from eventful_vitdet.modeling import backbone

MODULE = """
import os, time

def good(note):
    return {"ok": True, "rows": [1]}

def faulty(note):
    return {"ok": False, "failures": []}

def skipped(note):
    return {"reason": "fvcore is not installed"}

def failing(note):
    note({"rows": [1, float("nan")]})
    raise RuntimeError("an illegal memory access was encountered")

def hanging(note):
    note({"rows": [1]})
    time.sleep(600)

def dying(note):
    note({"rows": [1]})
    os._exit(9)

def dying_at_once(note):
    os._exit(9)
"""


@pytest.fixture
def make_part(tmp_path, monkeypatch):
    """Makes parts of the functions above."""
    (tmp_path / "parts_of_a_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(parts, "SLOWER_WITHOUT_GPU", 1)
    return lambda name, seconds=60: Part(name, f"parts_of_a_test:{name}", seconds, needs_gpu=False)


@pytest.mark.parametrize(
    ("name", "status", "reason", "result"),
    [
        ("good", DONE, None, {"ok": True, "rows": [1]}),
        ("failing", FAILED, "RuntimeError: an illegal memory access was encountered", {"rows": [1, "nan"]}),
        ("dying", FAILED, "its process ended with code 9", {"rows": [1]}),
        ("dying_at_once", FAILED, "its process ended with code 9 before it had a result", {}),
    ],
)
def test_how_a_part_ends(make_part, name, status, reason, result):
    outcome = run_part(make_part(name))
    assert (outcome["status"], outcome["reason"], outcome["result"]) == (status, reason, result)
    assert (outcome["traceback"] is not None) == (name == "failing")
    assert outcome["seconds"] > 0 and outcome["sources"]


def test_a_part_that_takes_too_long_keeps_what_it_has(make_part, monkeypatch):
    wait = subprocess.Popen.wait

    def out_of_time(process: subprocess.Popen, timeout: float | None = None) -> int:
        if timeout is None:
            return wait(process)
        while not Path(process.args[-1]).exists():  # until it has noted something
            with contextlib.suppress(subprocess.TimeoutExpired):
                return wait(process, 0.05)
        raise subprocess.TimeoutExpired(process.args, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", out_of_time)
    outcome = run_part(make_part("hanging"))
    assert outcome["status"] == OUT_OF_TIME and outcome["result"] == {"rows": [1]}
    assert outcome["reason"] == "ended after its time limit of 60 s"


@pytest.fixture
def command(make_part, tmp_path, monkeypatch, capsys):
    """Runs the command with some of the parts above, in this process; returns its exit code, its report, and what it
    printed."""

    def run_in_process(part: Part) -> dict:
        file = tmp_path / "outcome.json"
        file.unlink(missing_ok=True)
        parts.run_here(part.function, file)
        ending = {"seconds": 1.0, "sources": parts.sources_digest()}
        return {"traceback": None, **json.loads(file.read_text()), **ending}

    monkeypatch.setattr(parts, "run_part", run_in_process)

    def call(names: list[str], *words: str) -> tuple[int, dict, str]:
        monkeypatch.setattr(gpu_report_command, "PARTS", tuple(make_part(name) for name in names))
        code = gpu_report_command.main(["--output", str(tmp_path / "out"), *words])
        captured = capsys.readouterr()
        refused = "error:" in captured.err
        report = {} if refused else json.loads((tmp_path / "out" / "gpu_report.json").read_text())
        return code, report, captured.out + captured.err

    return call


def test_a_part_that_fails_does_not_stop_the_others(command):
    code, report, _ = command(["failing", "skipped", "good"])
    assert code == 1 and [p["status"] for p in report["parts"].values()] == [FAILED, SKIPPED, DONE]
    assert command(["good"])[0] == 0 and command(["faulty"])[0] == 1


def test_a_second_call_continues(command, monkeypatch):
    command(["good"])
    _, report, printed = command(["good", "skipped", "failing"])
    assert "good: finished before" in printed and list(report["parts"]) == ["good", "skipped", "failing"]
    _, _, printed = command(["good", "skipped", "failing"])
    assert "skipped: skipped" in printed and "failing: failed" in printed  # tried again
    assert "good: finished before" not in command(["good"], "--restart")[2]
    assert "good: finished before" not in command(["good", "skipped"], "--only", "skipped")[2]
    monkeypatch.setattr(parts, "sources_digest", lambda: "other code")
    assert "good: finished before" not in command(["good"])[2]


def test_results_belong_to_the_code_that_they_come_from(tmp_path, monkeypatch, repository):
    measured = [Path(module.__file__) for module in (detector_agreement, variants, backbone, streams)]
    suite = [*gpu_suite.test_files(repository / "tests"), *gpu_suite.detector_files(repository / "tests")]
    for file in (*measured, *suite):
        assert any(file.is_relative_to(folder) for folder in machine.SOURCES), file
    folders = tmp_path / "one", tmp_path / "two" / "inner"
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "code.py").write_text("1")
    monkeypatch.setattr(machine, "SOURCES", (tmp_path / "one", tmp_path / "two", tmp_path / "absent"))
    digests = [machine.sources_digest()]
    for folder in folders:
        (folder / "notes.txt").write_text("no code")
        assert machine.sources_digest() == digests[-1]
        (folder / "code.py").write_text("2")
        digests.append(machine.sources_digest())
    (folders[1] / "code.py").rename(folders[1] / "renamed.py")
    digests.append(machine.sources_digest())
    assert len(set(digests)) == 4


def test_a_report_of_another_machine_is_not_continued(command, monkeypatch):
    command(["good"])
    other = {"device": "NVIDIA H100", "torch": "2.11"}
    monkeypatch.setattr(machine, "describe_machine", lambda: other)
    code, _, printed = command(["good"])
    assert code == 1 and "is of another machine (device no GPU there, NVIDIA H100 here" in printed
    assert "choose another --output, or add --restart" in printed
    code, report, _ = command(["good"], "--restart")
    assert code == 0 and report["machine"] == other and list(report["parts"]) == ["good"]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"machine": {}, "parts": 3}'])
def test_a_file_that_is_no_report(command, tmp_path, content):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "gpu_report.json").write_text(content)
    code, _, printed = command(["good"])
    assert code == 1 and "gpu_report.json is no report" in printed and "Traceback" not in printed
    assert command(["good"], "--restart")[0] == 0


def test_a_folder_that_cannot_be_written(command, tmp_path):
    (tmp_path / "out").write_text("a file")
    code, _, printed = command(["good"])
    assert (
        code == 1 and printed.count("\n") >= 1 and f"error: --output {tmp_path / 'out'} cannot be written to" in printed
    )


def test_without_a_gpu_the_first_line_says_so(command, monkeypatch):
    monkeypatch.setattr(machine, "describe_machine", lambda: {"device": "no GPU"})
    assert command(["good"])[2].splitlines()[0].startswith("no GPU: kernels run in Triton's interpreter")
    monkeypatch.setattr(parts, "has_gpu", lambda: False)
    outcome = run_part(Part("tables", "nowhere:nothing", 1))
    assert (outcome["status"], outcome["reason"]) == (SKIPPED, "no GPU")


def test_everything_fits_into_nine_minutes():
    assert sum(part.seconds for part in PARTS) < 540


def test_the_report_has_all_rows_whatever_was_measured():
    empty = format_report({"machine": {"device": "no GPU"}, "parts": {}})
    failed = {"status": FAILED, "reason": "it | broke\nhere", "seconds": 1.0, "result": {}}
    broken = format_report({"machine": {"device": "no GPU"}, "parts": {part.name: failed for part in PARTS}})
    for text in (empty, broken):
        for part in PARTS:
            assert f"\n| {part.name} " in text and f"\n## {part.name}\n" in text
        assert all(f"\n| {goal.name} " in text for goal in GOALS)
    assert "not measured: not run" in empty and r"it \| broke here" in broken


def test_a_table():
    assert table(("a", "b"), [("x", 1.23456), ("y", None), ("z", True)]).splitlines() == [
        "| a |    b |", "| - | ---: |", "| x | 1.23 |", "| y |    - |", "| z |  yes |"
    ]  # fmt: skip


def test_paper_is_printed_and_its_arguments_are_checked(capsys):
    assert gpu_report_command.main(["--only", "paper", "--size", "672", "--r", "256"]) == 0
    assert "ViTDet-B, 672 px, r = 256, bfloat16" in capsys.readouterr().out
    for words, message in ((["--size", "100"], "100 is not a multiple"), (["--r", "5000"], "there are 4096")):
        with pytest.raises(SystemExit):
            gpu_report_command.main(["--only", "paper", *words])
        assert message in capsys.readouterr().err


def test_the_suites_tests_of_a_detector_come_last(tmp_path, monkeypatch):
    """If they take too long, those of the Transformer are known."""
    outcomes = [
        {"counts": {"passed": 3}, "failures": [], "reason": None, "ok": True},
        {"counts": {"passed": 1, "failed": 1}, "failures": ["FAILED a"], "reason": None, "ok": False},
    ]
    missing, noted, left = {}, [], list(outcomes)
    monkeypatch.setattr(gpu_suite, "run_pytest", lambda files, tests: left.pop(0))
    monkeypatch.setattr(gpu_suite, "missing_packages", lambda *names: missing.get(names[0]))
    result = gpu_suite.run_suite(noted.append, tmp_path)
    assert result["counts"] == {"passed": 4, "failed": 1} and result["failures"] == ["FAILED a"] and not result["ok"]
    assert noted[-1]["counts"] == {"passed": 3} and "time limit" in noted[-1]["left_out"]
    missing["fvcore"], left[:] = "fvcore is not installed", outcomes
    without = gpu_suite.run_suite(noted.append, tmp_path)
    assert without["counts"] == {"passed": 3}
    part = {"status": DONE, "reason": None, "seconds": 1.0, "result": without}
    text = format_report({"machine": {"device": "no GPU"}, "parts": {"suite": part}})
    assert "tests of a detector are left out: fvcore is not installed" in text


def test_the_suites_gpu_tests_are_found_and_read(repository, tmp_path):
    names = [path.name for path in gpu_suite.test_files(repository / "tests")]
    assert "test_gpu_kernels.py" in names and "test_policies.py" not in names
    assert "test_rest_of_frame.py" in [path.name for path in gpu_suite.detector_files(repository / "tests")]
    assert "is not here" in gpu_suite.run_suite(lambda result: None, tmp_path / "tests")["reason"]
    (tmp_path / "test_two.py").write_text("def test_a():\n    assert 1\n\ndef test_b():\n    assert 0\n")
    result = gpu_suite.run_pytest([tmp_path / "test_two.py"], tmp_path)
    assert result["counts"] == {"failed": 1, "passed": 1} and not result["ok"]
    assert len(result["failures"]) == 1 and "test_b" in result["failures"][0]
    broken = gpu_suite.read_outcome("Killed", -9)
    assert not broken["ok"] and "Killed" in broken["failures"][0]


PROGRAM = """
import importlib, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
import eventful_vitdet.gpu_report as package
from eventful_vitdet.gpu_report.machine import use_interpreter_without_gpu
use_interpreter_without_gpu()
importlib.import_module("eventful_vitdet.cli.gpu_report_command")
for module in pkgutil.iter_modules(package.__path__):
    importlib.import_module(f"{{package.__name__}}.{{module.name}}")
"""


def test_a_bare_machine_suffices():
    """Nothing but PyTorch, Triton and numpy is imported where it need not be."""
    absent = ["detectron2", "fvcore", "iopath", "pycocotools", "av", "cv2", "torchvision",
              "safetensors", "matplotlib", "tqdm", "pytest", "PIL"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(Path(package.__file__).parents[2])}
    words = [sys.executable, "-c", PROGRAM.format(absent=absent)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
