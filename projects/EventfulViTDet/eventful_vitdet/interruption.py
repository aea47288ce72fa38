"""Interruptions that come when they are welcome: during the work, and not while files are opened or closed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, what ends a process politely, and a terminal that was closed."""


class Interruptions:
    """A context manager in which an interruption raises KeyboardInterrupt inside `allowed` only, and once.

    One that comes before waits for `allowed`; one that comes after, such as an impatient second Ctrl-C, is too late to
    matter. Signals that were ignored before, as by nohup, stay so. In other threads than the main one, which signals
    never reach, it changes nothing.

    Example:
        >>> with Interruptions() as interruptions, open_files() as files, interruptions.allowed():
        ...     work(files)
    """

    def __init__(self) -> None:
        self._allowed = False
        self._came = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interruptions:
        if threading.current_thread() is threading.main_thread():
            heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._hear) for number in heard}
        return self

    def __exit__(self, *exc_info: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

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
