"""A machine on which others work too, for measuring what that costs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

WORK = """
import os
parent = os.getppid()
while os.getppid() == parent:  # ends with its parent process
    for _ in range(1_000_000):
        pass
"""


@contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """Within this context, so many other processes would each like a core for themselves all the time."""
    with ExitStack() as stack:
        for _ in range(number):
            process = subprocess.Popen([sys.executable, "-S", "-c", WORK])
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield
