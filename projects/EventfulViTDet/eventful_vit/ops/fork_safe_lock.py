"""A lock that is free in a forked process even if a thread of the parent held it: the child lacks that thread."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager


class ForkSafeLock:
    """For locks that live as long as the process. Use it as `with fork_safe.lock:`.

    The lock itself is entered, as a context manager in Python could be interrupted between its lock and the caller.
    """

    def __init__(self, make: Callable[[], AbstractContextManager] = threading.Lock) -> None:
        self._make = make
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self.lock = self._make()
