"""The parts of a report: each runs in a process of its own, for as long as it may take.

A kernel that reads where it must not leaves its process unable to use the GPU, and a compiler may never come back;
neither stops the other parts. A part notes what it has so far, so that being ended costs the rest only.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from .machine import NO_GPU, has_gpu, sources_digest, use_interpreter_without_gpu
from .part_list import Part
from .report_file import write_strict_json

SLOWER_WITHOUT_GPU = 4
"""How much longer a part may take in the interpreter: other work may share the processors."""
DONE, FAILED, SKIPPED, OUT_OF_TIME = "done", "failed", "skipped", "out of time"

_PACKAGE = __package__


def is_finished(outcome: dict | None) -> bool:
    """Whether a part need not be run again: it came to its end, with the code as it is now."""
    return outcome is not None and outcome["status"] == DONE and outcome["sources"] == sources_digest()


def run_part(part: Part) -> dict:
    """Run a part in a child process.

    Returns:
        {"status", "reason", "traceback", "seconds", "sources", "result"}: what it has, however it ended.
    """
    started, sources = time.monotonic(), sources_digest()
    empty = {"status": FAILED, "reason": None, "traceback": None, "seconds": 0.0, "sources": sources, "result": {}}
    if part.needs_gpu and not has_gpu():
        return {**empty, "status": SKIPPED, "reason": NO_GPU}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "outcome.json")
        words = [sys.executable, "-m", f"{_PACKAGE}.parts", part.function, str(file)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = subprocess.Popen(words, env=environment, start_new_session=True)
        ending = {}
        limit = part.seconds * (1 if has_gpu() else SLOWER_WITHOUT_GPU)
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            ending = {"status": OUT_OF_TIME, "reason": f"ended after its time limit of {limit} s"}
        finally:
            _end(process)  # and all that it left running
        outcome = empty
        if file.exists():
            outcome.update(json.loads(file.read_text(encoding="utf-8")))
        elif not ending:
            ending = {"reason": f"its process ended with code {code} before it had a result"}
        if not ending and outcome["status"] == OUT_OF_TIME:  # what a running part's file says
            ending = {"status": FAILED, "reason": f"its process ended with code {code}"}
    return {**outcome, **ending, "seconds": time.monotonic() - started}


def _end(process: subprocess.Popen) -> None:
    if not hasattr(os, "killpg"):  # Windows has no groups of processes
        process.kill()
    else:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait()


def run_here(function: str, file: Path) -> None:
    """In the child process: run a part's function, and write what it has to a file."""
    use_interpreter_without_gpu()

    def note(result: dict) -> None:
        write_strict_json(file, {"status": OUT_OF_TIME, "result": result})

    try:
        module, _, name = function.partition(":")
        result = getattr(importlib.import_module(module), name)(note)
    except Exception as error:
        known = json.loads(file.read_text(encoding="utf-8"))["result"] if file.exists() else {}
        reason = f"{type(error).__name__}: {error}"
        outcome = {"status": FAILED, "reason": reason, "traceback": traceback.format_exc(), "result": known}
    else:
        reason = result.get("reason")
        outcome = {"status": DONE if reason is None else SKIPPED, "reason": reason, "result": result}
    write_strict_json(file, outcome)


if __name__ == "__main__":
    run_here(sys.argv[1], Path(sys.argv[2]))
