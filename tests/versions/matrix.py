"""Installs the project with an old, a middle and the newest set of versions, and runs the tests with each.

    make test-matrix
    python tests/versions/matrix.py --sets oldest --python oldest=python3.9 -- tests/video

Each set gets a virtual environment of its own, which is removed before the next one is made (about 6 GB). Arguments
behind `--` are pytest's. The exit code is 1 if a test failed, or if a set could not be installed.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
SETS = {"oldest": HERE / "oldest.txt", "middle": HERE / "middle.txt", "newest": REPOSITORY / "constraints.txt"}
SHOWN = ("torch", "torchvision", "numpy", "opencv-python", "opencv-python-headless", "av", "pillow")
"""Packages whose versions the table has."""
LIBRARIES_OF_OTHERS = (
    ["--editable", f"{REPOSITORY}[timm]"],
    ["--editable", f"{REPOSITORY}[transformers]"],
    ["--editable", f"{REPOSITORY}[track]"],
    ["--no-deps", "trackers"],
)
"""What is tried one after the other: they may need more than the project does. Tests are skipped without them."""
ASK_VERSIONS = """
import importlib.metadata, platform
print("Python", platform.python_version())
for name in {names}:
    try:
        print(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        pass
"""


@dataclass
class Outcome:
    """What became of a set."""

    name: str
    versions: str = ""
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    error: str = ""
    """Why the tests did not run."""

    @property
    def is_good(self) -> bool:
        return not self.error and not self.failed and self.passed > 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    args = parse(arguments)
    outcomes = []
    for name in args.sets:
        with tempfile.TemporaryDirectory(prefix=f"eventful_vitdet_{name}_") as folder:
            outcomes.append(try_set(name, args.python.get(name, sys.executable), Path(folder), args.pytest))
        print(table(outcomes), flush=True)
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="default: all")
    parser.add_argument(
        "--python", nargs="+", default=[], metavar="SET=PYTHON", help="interpreters; by default the one that runs this"
    )
    parser.add_argument("pytest", nargs="*", default=[], help="behind `--`: what to test, and pytest's options")
    args = parser.parse_args(arguments)
    args.python = dict(word.partition("=")[::2] for word in args.python)
    if unknown := [name for name, python in args.python.items() if name not in SETS or not python]:
        parser.error(f"--python takes SET=PYTHON with one of the sets {', '.join(SETS)}, not {unknown[0]!r}")
    return args


def try_set(name: str, python: str, folder: Path, pytest_words: Sequence[str]) -> Outcome:
    """Install a set of versions into `folder`, and run the tests."""
    print(f"--- {name}: installing", flush=True)
    started = time.monotonic()
    try:
        inside = install(python, SETS[name], folder / "venv")
    except (OSError, subprocess.CalledProcessError) as error:
        return Outcome(name, seconds=time.monotonic() - started, error=f"not installed: {describe(error)}")
    versions = subprocess.run([inside, "-c", ASK_VERSIONS.format(names=SHOWN)], capture_output=True, text=True)
    outcome = Outcome(name, ", ".join(versions.stdout.splitlines()))
    print(f"--- {name}: {outcome.versions}", flush=True)
    results, started = folder / "results.xml", time.monotonic()
    words = [inside, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={results}", *pytest_words]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = subprocess.run(words, cwd=REPOSITORY, env=environment).returncode
    outcome.seconds = time.monotonic() - started
    return count(outcome, results, code)


def install(python: str, constraints: Path, folder: Path) -> str:
    """Make an environment with the project, editable as `make venv` has it; returns its interpreter."""
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    inside = str(folder / ("Scripts" if os.name == "nt" else "bin") / "python")
    pip = [inside, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    install = [*pip, "install", "--constraint", str(constraints)]
    subprocess.run([*pip, "install", "--upgrade", "pip"], check=True)
    subprocess.run([*install, "--editable", f"{REPOSITORY}[live,test-tools]"], check=True)
    for words in LIBRARIES_OF_OTHERS:
        if subprocess.run([*install, *words], stderr=subprocess.DEVNULL).returncode:
            print(f"not with these versions, or this Python: pip install {' '.join(words)}", flush=True)
    if re.search("^opencv-python==", constraints.read_text(), re.MULTILINE):
        # As the documentation says: never both.
        both = ["opencv-python", "opencv-python-headless"]
        subprocess.run([*pip, "uninstall", "--yes", *both], check=True, stderr=subprocess.DEVNULL)
        subprocess.run([*install, "opencv-python"], check=True)
    return inside


def count(outcome: Outcome, results: Path, code: int) -> Outcome:
    """Add pytest's counts, and its exit code where that tells more."""
    if not results.exists():
        outcome.error = f"pytest ended with code {code} and without results"
        return outcome
    for suite in ElementTree.parse(results).getroot().iter("testsuite"):
        number = {key: int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped")}
        outcome.failed += number["failures"] + number["errors"]
        outcome.skipped += number["skipped"]
        outcome.passed += number["tests"] - number["failures"] - number["errors"] - number["skipped"]
    if code and not outcome.failed:
        outcome.error = f"pytest ended with code {code}"
    return outcome


def describe(error: OSError | subprocess.CalledProcessError) -> str:
    words = getattr(error, "cmd", None)
    return f"`{' '.join(words)}` ended with code {error.returncode}" if words else str(error)


def table(outcomes: Sequence[Outcome]) -> str:
    """All sets so far, as a table of Markdown."""
    lines = ["", "| set | versions | passed | failed | skipped | seconds |", "| --- " * 2 + "| ---: " * 4 + "|"]
    for one in outcomes:
        numbers = f"{one.passed} | {one.failed} | {one.skipped} | {one.seconds:.0f}"
        lines.append(f"| {one.name} | {one.error or one.versions} | {numbers} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
