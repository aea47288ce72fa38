"""One writer at a time for a file that is put in place when it is complete."""

from __future__ import annotations

import errno
import os

from ..file_locks import try_lock


class Claim:
    """Holds a temporary file's name against other processes, until it is released or the process ends.

    The file is made if it is not there; what is in it is left alone.
    """

    def __init__(self, path: str) -> None:
        """Raises OSError if the file cannot be made, or if somebody else has claimed it."""
        self._file = None
        while self._file is None or not self._is_at(path):
            self.release()  # whoever had it was just about to rename it
            self._file = open(path, "ab")
            if not try_lock(self._file, path, "see that nothing else writes it"):
                self.release()
                raise OSError(errno.EBUSY, "another command is writing it", path)

    def _is_at(self, path: str) -> bool:
        return os.path.exists(path) and os.path.samestat(os.fstat(self._file.fileno()), os.stat(path))

    def release(self) -> None:
        """Let others have the name; after renaming or deleting the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
