"""One writer at a time for a file that is put in place when it is complete."""

from __future__ import annotations

import errno
import os

from filelock import FileLock, Timeout

from ..file_locks import acquire_lock
from ..files import remove_if_there


class Claim:
    """Holds a temporary file's name against other processes, until it is released or the process ends.

    The file is made if it is not there; what is in it is left alone. The lock itself is a hidden file beside it.
    """

    def __init__(self, path: str) -> None:
        """Raises OSError if the file cannot be made, or if somebody else has claimed it."""
        folder, name = os.path.split(path)
        self._lock_path: str | None = os.path.join(folder, f".{name.lstrip('.')}.lock")
        try:
            self._lock = self._acquire()
        except Timeout as error:
            raise OSError(errno.EBUSY, "another command is writing it", path) from error
        try:
            open(path, "ab").close()
        except OSError:
            self.release()
            raise

    def _acquire(self) -> FileLock | None:
        while True:
            lock = acquire_lock(self._lock_path, "see that nothing else writes it")
            if lock is None or os.path.exists(self._lock_path):
                return lock
            lock.release()  # of a file that its holder deleted between our opening and our locking it

    def release(self) -> None:
        """Let others have the name; after renaming or deleting the file."""
        if self._lock_path is None:
            return
        remove_if_there(self._lock_path)  # while it is held, so that it is nobody else's
        if self._lock is not None:
            self._lock.release()
        self._lock_path = None
