"""A file for writing that can still be finished properly when the disk is full."""

from __future__ import annotations

import errno
import os

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
RESERVES = (8 << 20, 2 << 20, 1 << 19, 1 << 17)
"""Bytes to set aside: the first of these for which there is room."""


class ReservedFile:
    """A binary file, open for writing, with some disk space set aside in a neighbouring file.

    When the disk is full that space is given up for the write that met it, so writing goes on, and `full` tells the
    owner that it is time to come to an end. Only when the reserve is used up too does a write raise OSError.
    """

    def __init__(self, path: str) -> None:
        """Raises OSError if the file cannot be made."""
        self._file = open(path, "wb", buffering=0)
        self._reserve: str | None = f"{path}.reserve"
        self.full = False
        self.error: OSError | None = None
        """What the last failed write met, for those who get to see an error of a library in between."""
        for size in RESERVES:
            try:
                with open(self._reserve, "wb") as file:
                    file.write(os.urandom(size))  # zeros might not take up space
                return
            except OSError as error:
                self._release()
                if error.errno not in DISK_FULL:
                    break
                self._reserve = f"{path}.reserve"

    def write(self, data: bytes) -> int:
        """Write all of `data`; returns its length."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._file.write(rest) :]
            except OSError as error:
                self.full = self.full or error.errno in DISK_FULL
                if error.errno not in DISK_FULL or self._reserve is None:
                    self.error = error
                    raise
                self._release()
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of any file."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file and give the reserve back."""
        self._file.close()
        self._release()

    def _release(self) -> None:
        reserve, self._reserve = self._reserve, None
        if reserve is not None and os.path.exists(reserve):
            os.unlink(reserve)
