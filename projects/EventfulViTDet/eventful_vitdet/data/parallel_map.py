"""Work on many files, shared out over the cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from ..errors import DataError
from ..usable_cores import usable_cores

MAX_PROCESSES = 16
CAN_FORK = hasattr(os, "fork") and sys.platform != "darwin"
"""Windows has no such thing, and libraries of macOS may crash in a forked process: there, the work is done here."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_processes() -> int:
    """How many processes this one may start with profit."""
    if multiprocessing.current_process().daemon:  # which may not have children
        return 1
    return min(usable_cores(), MAX_PROCESSES)


def map_in_processes(
    function: Callable[[Item], Result], items: Sequence[Item], processes: int | None = None
) -> Iterator[Result]:
    """Yield `function(item)` of all items in their order, computed by `processes` (None: all usable) processes
    where the system can fork (`CAN_FORK`).

    Raises DataError if one of them is killed from outside.
    """
    processes = min(usable_processes() if processes is None else processes, len(items))
    if processes <= 1 or not CAN_FORK:
        yield from map(function, items)
        return
    # Forked, as they need nothing but what is in memory already; fresh processes would import PyTorch first.
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_ignore_interrupts) as pool:
        try:
            yield from pool.map(function, items)
        except BrokenProcessPool as error:
            raise DataError("a process that read files was killed; is there too little memory?") from error
        except BaseException:  # Ctrl-C included: what has not been started is not worth waiting for
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and ends the work
