"""PyTorch's own threads on a CPU, and how they leave the cores to the kernels' threads.

After an operation of PyTorch, the threads of its OpenMP library (GNU's, in the usual builds) wait busily for the next
one, for a millisecond or more. A thread of the kernels that is woken up meanwhile has to wait for a core, which costs
up to a time slice of several milliseconds. So they are ended before a model's blocks begin; PyTorch starts others when
it needs them. On an otherwise idle machine a frame of the airborne model takes three quarters of the time then
(docs/performance.md).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

SOFT = 1
"""omp_pause_soft: settings are kept."""

_process = os.getpid()


def end_waiting_threads() -> None:
    """End the calling thread's idle OpenMP threads, if PyTorch may have some. Ends in microseconds where it has none.

    A forked process inherits the library's notes of threads, but not the threads, so there it does nothing.
    """
    if torch.get_num_threads() > 1 and os.getpid() == _process:
        for pause in _pauses():
            pause(SOFT)


@cache
def _pauses() -> tuple[Callable[[int], int], ...]:
    """`omp_pause_resource_all` (OpenMP 5.0) of every GNU OpenMP library that this process has loaded."""
    found = []
    for path in loaded_libraries():
        pause = getattr(ctypes.CDLL(path), "omp_pause_resource_all", None)
        if pause is not None:
            pause.argtypes, pause.restype = (ctypes.c_int,), ctypes.c_int
            found.append(pause)
    return tuple(found)


def loaded_libraries() -> list[str]:
    """Paths of all GNU OpenMP libraries in this process."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:  # another system than Linux
        return []
    paths = {line.split(maxsplit=5)[5] for line in lines if line.count(" ") >= 5 and "/libgomp" in line}
    return sorted(path for path in paths if os.path.basename(path).startswith("libgomp") and os.path.exists(path))
