"""The test suite's tests of GPU kernels, in a process of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from ..known_models import CHECKOUT
from .detector_agreement import DETECTRON2_NEEDS
from .machine import missing_packages
from .part_list import Note

FIXTURES = re.compile(r"\bgpu_(kernels|device)\b|torch\.cuda\b")
"""What test files use whose tests run on a GPU."""


def run_suite(note: Note, tests: Path = CHECKOUT / "tests") -> dict:
    """Run those of the Transformer, then those of what follows it in a detector.

    Returns:
        How many passed, failed, were skipped, the failures' lines, and why the detector's were left out, where they
        were; or the reason why there are none.
    """
    reason = missing_packages("pytest")
    if reason is None and not tests.is_dir():
        reason = f"{tests} is not here: run this in a checkout of the repository"
    if reason is not None:
        return {"reason": reason}
    note({"reason": "the tests took longer than this part's time limit"})
    outcome = run_pytest(test_files(tests), tests)
    reason = missing_packages(*DETECTRON2_NEEDS)
    if reason is not None:
        return {**outcome, "left_out": reason}
    note({**outcome, "left_out": "they took longer than this part's time limit"})
    return _both(outcome, run_pytest(detector_files(tests), tests))


def test_files(tests: Path) -> list[Path]:
    """Test files of the eventful ViT that use a GPU where there is one."""
    files = sorted((tests / "vit").rglob("test_*.py"))
    return [path for path in files if FIXTURES.search(path.read_text(encoding="utf-8"))]


def detector_files(tests: Path) -> list[Path]:
    """Test files of what follows the Transformer: all of them use a GPU where there is one."""
    return sorted((tests / "modeling" / "gpu_detector").glob("test_*.py"))


def _both(first: dict, second: dict) -> dict:
    counts = Counter(first["counts"]) + Counter(second["counts"])
    failures = first["failures"] + second["failures"]
    return {"counts": dict(counts), "failures": failures, "reason": None, "ok": first["ok"] and second["ok"]}


def run_pytest(files: list[Path], tests: Path) -> dict:
    """Run test files, with several processes where pytest-xdist is installed."""
    words = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", *map(str, files)]
    if missing_packages("xdist") is None:
        words += ["-n", str(min(8, max(1, (os.cpu_count() or 2) // 2)))]
    if missing_packages(*DETECTRON2_NEEDS) is not None:
        # The suite's own conftest imports Detectron2; these tests do not.
        words += ["--confcutdir", str(tests / "vit")]
    path = os.pathsep.join([str(tests), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(words, cwd=tests.parent, env=environment, capture_output=True, text=True)
    return read_outcome(done.stdout + done.stderr, done.returncode)


def read_outcome(output: str, code: int) -> dict:
    """Counts and failures from what pytest printed."""
    last = next((line for line in reversed(output.splitlines()) if re.search(r"\d+ \w+.* in [\d.]+s", line)), "")
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)\b", last)}
    failures = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if not counts or code not in (0, 1):
        failures.append(f"pytest ended with {code}: {output.strip()[-2000:]}")
    return {"counts": counts, "failures": failures, "reason": None, "ok": code == 0 and bool(counts)}
