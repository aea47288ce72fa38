"""How many threads a frame gets on a CPU whose cores others want, too, and in a container with a limit.

The kernels share out their work piece by piece (pool.cpp), so a thread that gets no core holds nobody up. An operation
of PyTorch is divided in advance and ends when its last thread has had its turn: beside busy processes each of the
hundreds in a frame may wait for milliseconds. So frames are watched. One in which the calling thread spent much of its
time without a core, or waiting for other threads, says that cores are missing. Then PyTorch's operations run in one
thread, and the kernels in as many as before.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from eventful_vit.ops import cpu

from .control_groups import cpu_limit

LOST = 0.4
"""Share of a frame's time without a core from which on operations get one thread."""
QUIET = 0.1
"""In one thread: below this share nobody else wants the core, so more threads are tried again, ..."""
FIRST_PAUSE = 0.5
"""... after so many seconds. Each attempt that fails doubles them, ..."""
LONGEST_PAUSE = 8.0
"""... up to here: a single busy process leaves a core to one thread, and none to the second."""
PROBATION = 1.0
"""An attempt that lasts for so many seconds has not failed."""

FRAMES_BEFORE_WARNING = 10
"""In a row, of an evaluation, whose numbers of threads do not change."""

logger = logging.getLogger(__name__)


class Contention:
    """Whether cores are missing, judged by the frames of this process. Frames of all threads count."""

    def __init__(self) -> None:
        self.crowded = False
        """Operations get one thread."""
        self._pause = FIRST_PAUSE
        self._quiet_since: float | None = None
        self._tried_at = -math.inf
        self._lock = threading.Lock()

    def saw(self, now: float, seconds: float, lost: float, crowded: bool) -> None:
        """Learn from a frame.

        Args:
            now: a clock's time at its end.
            seconds: how long it took.
            lost: the share of that which its thread spent without a core, from 0 to 1.
            crowded: what `crowded` was when it began.
        """
        with self._lock:
            if crowded != self.crowded:  # of another thread, that began before the last change
                return
            if not crowded:
                self._saw_many_threads(now, lost)
            elif lost >= QUIET:
                self._quiet_since = None
            elif self._quiet_since is None:
                self._quiet_since = now - seconds
            if self.crowded and self._quiet_since is not None and now - self._quiet_since >= self._pause:
                self.crowded, self._tried_at = False, now

    def _saw_many_threads(self, now: float, lost: float) -> None:
        if lost >= LOST:
            failed = now - self._tried_at < PROBATION
            self._pause = min(2 * self._pause, LONGEST_PAUSE) if failed else FIRST_PAUSE
            self.crowded, self._quiet_since = True, None
            logger.debug("other programs want the cores: PyTorch's operations run in one thread")


class KeptThreads:
    """Whether every frame of this process has all threads, as evaluations need it; says if that costs much."""

    def __init__(self) -> None:
        self._users = 0
        self._crowded_frames = 0
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return self._users > 0 or torch.are_deterministic_algorithms_enabled()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Within the context it is so: with other numbers of threads, sums may be rounded differently."""
        with self._lock:
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1

    def saw(self, lost: float) -> None:
        """Learn which share of a frame's time its thread spent without a core."""
        self._crowded_frames = self._crowded_frames + 1 if lost >= LOST else 0
        if self._crowded_frames == FRAMES_BEFORE_WARNING:
            logger.warning(
                "other programs use the cores, and PyTorch's threads mostly wait for each other; with "
                "TEST.THREADS_PER_PROCESS 1 (or OMP_NUM_THREADS=1) an evaluation is faster"
            )


kept_threads = KeptThreads()
_contention = Contention()


@contextmanager
def fitting_threads(
    device: torch.device,
    contention: Contention = _contention,
    clock: Callable[[], float] = time.perf_counter,
    own_clock: Callable[[], float] = time.thread_time,
) -> Iterator[None]:
    """Within the context, in which a frame is computed, the calling thread has as many threads as there is room for.

    Args:
        clock: seconds.
        own_clock: seconds that the calling thread had a core for.
    """
    wanted = cpu.pool_threads()
    if device.type != "cpu" or wanted == 1:
        yield
        return
    kept = bool(kept_threads)
    threads = wanted if kept else container_threads(wanted)
    crowded = not kept and (contention.crowded or threads == 1)
    start, own_start = clock(), own_clock()
    with cpu.thread_counts(1 if crowded else threads, threads):
        yield
    now = clock()
    lost = 1 - (own_clock() - own_start) / max(now - start, 1e-9)
    if kept:
        kept_threads.saw(lost)
    elif threads > 1:
        contention.saw(now, now - start, lost, crowded)


def container_threads(threads: int) -> int:
    """So many threads, or fewer if a container's limit leaves less time than that."""
    limit = _own_cpu_limit()
    return threads if limit is None else max(1, min(threads, math.ceil(limit)))


@cache
def _own_cpu_limit() -> float | None:
    return cpu_limit()
