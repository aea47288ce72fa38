"""Programs in processes of their own, without the seconds that importing PyTorch takes: forks of one that did so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import eventful_vitdet

FORK_EACH = """
import json, os, sys, torch, torchvision
for line in sys.stdin:
    program, output = json.loads(line)
    child = os.fork()
    if child == 0:
        files = os.open(os.devnull, os.O_RDONLY), os.open(output, os.O_WRONLY | os.O_CREAT)
        for number in range(3):
            os.dup2(files[number > 0], number)
        exec(program, {"__name__": "__main__"})
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class ForkedPrograms:
    """Runs programs one after the other, where PyTorch and torchvision are imported, and nothing of ours."""

    def __init__(self, folder: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(eventful_vitdet.__file__).parents[1])}
        words = [sys.executable, "-W", "ignore", "-c", FORK_EACH]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(words, env=environment, **pipes)
        self._output = folder / "output"

    def check(self, program: str) -> None:
        """Run a program, which has to succeed."""
        self._output.unlink(missing_ok=True)
        self._process.stdin.write(json.dumps([program, str(self._output)]) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        assert code == 0, self._output.read_text()

    def end(self) -> None:
        self._process.communicate()
