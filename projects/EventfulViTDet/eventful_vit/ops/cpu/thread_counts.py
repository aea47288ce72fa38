"""How many threads the calling thread's work on a CPU is shared out to: that of the kernels, and PyTorch's own."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from .openmp import loaded_libraries

_local = threading.local()


def pool_threads() -> int:
    """Threads for a kernel's work: as many as PyTorch has, or had before `thread_counts`."""
    return getattr(_local, "pool", 0) or torch.get_num_threads()


@contextmanager
def thread_counts(operations: int, kernels: int) -> Iterator[None]:
    """Within the context, PyTorch's operations and the kernels use so many threads, in the calling thread.

    Other threads keep their numbers, those that are started meanwhile included, where `_setters` are found.
    """
    before, before_pool = torch.get_num_threads(), getattr(_local, "pool", 0)
    restore = _set_operations(operations) if operations != before else None
    _local.pool = kernels
    try:
        yield
    finally:
        _local.pool = before_pool
        if restore is not None:
            restore()


def _set_operations(number: int) -> Callable[[], object]:
    """Give the calling thread's operations so many threads; returns what undoes it."""
    before, setters = torch.get_num_threads(), _setters()
    if setters is None:
        torch.set_num_threads(number)  # threads that start until this is undone would begin with this number
        return lambda: torch.set_num_threads(before)
    openmp, mkl = setters
    openmp(number)
    before_mkl = mkl(number)  # 0: it follows OpenMP's number

    def restore() -> None:
        openmp(before)
        mkl(before_mkl)

    return restore


@cache
def _setters() -> tuple[Callable[[int], object], Callable[[int], int]] | None:
    """What sets the numbers of GNU's OpenMP library and of MKL for the calling thread, and nothing else.

    None where PyTorch is built in another way. torch.set_num_threads also sets what new threads begin with.
    """
    mkl = None
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    found = [path for path in loaded_libraries() if Path(path).parent == library.parent] or loaded_libraries()
    if len(found) != 1 or not library.is_file():
        return None
    if torch.backends.mkl.is_available():
        mkl = getattr(ctypes.CDLL(str(library)), "MKL_Set_Num_Threads_Local", None)
        if mkl is None:
            return None
        mkl.argtypes, mkl.restype = (ctypes.c_int,), ctypes.c_int
    openmp = getattr(ctypes.CDLL(found[0]), "omp_set_num_threads", None)
    if openmp is None:
        return None
    openmp.argtypes, openmp.restype = (ctypes.c_int,), None
    return (openmp, mkl or (lambda number: 0)) if _is_pytorchs(openmp) else None


def _is_pytorchs(openmp: Callable[[int], object]) -> bool:
    """Whether this library is the one that PyTorch's operations run on."""
    before = torch.get_num_threads()
    openmp(before + 1)
    follows = torch.get_num_threads() == before + 1
    openmp(before)
    return follows
