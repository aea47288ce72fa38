"""What Ctrl-C, and a politely ended process, do at which moment. Imports nothing that takes time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType
from typing import NoReturn

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, what ends a process politely, and a terminal that was closed (Windows has no such signal)."""
CAN_HOLD_BACK = hasattr(signal, "pthread_sigmask")
"""Whether new processes can be started deaf to signals; Windows cannot."""
EXIT_CODE = 130
"""Of a command that was interrupted: what shells expect."""


def say_interrupted() -> int:
    """Say that the command was interrupted, in the first of its processes; returns the exit code."""
    if _speaks():
        print("interrupted", file=sys.stderr, flush=True)
    return EXIT_CODE


def leave(number: int, stack: FrameType | None) -> None:
    """A handler that ends the process at once, while there is nothing to lose: as long as modules are imported.

    An exception would be lost, or turned into another one, in some library's import.
    """
    if _speaks():
        os.write(sys.stderr.fileno(), b"interrupted\n")
    os._exit(EXIT_CODE)


def _speaks() -> bool:
    """Whether this is the only, or the first, process of a command."""
    # By name: a process that is being spawned does not know its parent yet.
    return multiprocessing.current_process().name == "MainProcess" and os.environ.get("RANK", "0") == "0"


def listen() -> None:
    """Hear what `held_back` has held back."""
    if CAN_HOLD_BACK:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextmanager
def held_back() -> Iterator[None]:
    """Within this context, processes are started deaf to Ctrl-C until they `listen`; this one hears it as always.

    A new interpreter would print a traceback of its own start.
    """
    if not CAN_HOLD_BACK:
        yield
        return
    resource_tracker.ensure_running()  # which would end the blocking
    over = threading.Event()
    hearing = threading.Thread(target=over.wait, name="hears Ctrl-C", daemon=True)
    hearing.start()  # before the main thread is deaf, as new threads and processes inherit that
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        listen()
        over.set()
        hearing.join()


def raise_once(number: int, stack: FrameType | None) -> None:
    """A handler that raises KeyboardInterrupt, and has the process ignore further interruptions."""
    signal.signal(number, signal.SIG_IGN)
    _raise()


def raise_then_leave(number: int, stack: FrameType | None) -> None:
    """A handler that raises KeyboardInterrupt; a second interruption ends the process at once."""
    signal.signal(number, lambda *_: os._exit(EXIT_CODE))
    _raise()


@contextmanager
def left_at_once() -> Iterator[None]:
    """Within this context, in which modules are imported, an interruption of a command ends it at once (see `leave`).

    Elsewhere than in a command nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    if before is not raise_then_leave:
        yield
        return
    signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _raise() -> NoReturn:
    # Objects that were interrupted while they were made cannot always be deleted, which Python would tell at length.
    sys.unraisablehook = lambda unraisable: None
    raise KeyboardInterrupt


@contextmanager
def signals_handled(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Within this context, `handler` hears of SIGNALS, but for those that were ignored before, as by nohup. Other
    threads than the main one, which signals never reach, change nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


class Interruptions:
    """A context manager in which an interruption raises KeyboardInterrupt inside `allowed` only, and once.

    One that comes before waits for `allowed`; one that comes after, such as an impatient second Ctrl-C, is too late to
    matter. What is ignored, and other threads than the main one, stay as they are (`signals_handled`).

    Example:
        >>> with Interruptions() as interruptions, open_files() as files, interruptions.allowed():
        ...     work(files)
    """

    def __init__(self) -> None:
        self._allowed = False
        self._came = False
        self._handling = signals_handled(self._hear)

    def __enter__(self) -> Interruptions:
        self._handling.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._handling.__exit__(*exc_info)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """A block that is left by KeyboardInterrupt when an interruption comes, or has come before."""
        self._allowed = True
        try:
            if self._came:
                raise KeyboardInterrupt
            yield
        finally:
            self._allowed = False

    def _hear(self, number: int, stack: FrameType | None) -> None:
        self._came = True
        if self._allowed:
            self._allowed = False
            raise KeyboardInterrupt
