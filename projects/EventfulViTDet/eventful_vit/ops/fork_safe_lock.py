"""A lock that is free in a forked process, whoever held it in the parent: the child has none of its other threads."""

from __future__ import annotations

import os
import threading


class ForkSafeLock:
    """For locks that live as long as the process."""

    def __init__(self) -> None:
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()
