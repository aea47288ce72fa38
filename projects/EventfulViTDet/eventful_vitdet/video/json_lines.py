"""A file of JSON lines, of which every line is whole, whatever ends the writing."""

from __future__ import annotations

import json
import os

from ..errors import VideoWriteError
from .file_claim import Claim


class JsonLinesWriter:
    """A context manager that writes records, a line of strict JSON each.

    The file appears under its name at the end, also when an error or Ctrl-C ends the writing: with the lines
    up to there. Without any line, nothing is left.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._temporary = f"{self.path}.part"
        self._end = 0

    def __enter__(self) -> JsonLinesWriter:
        try:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            self._claim = Claim(self._temporary)
            self._file = open(self._temporary, "wb", buffering=0)
        except OSError as error:
            raise VideoWriteError(f"{self.path}: cannot be written to ({error.strerror})") from error
        return self

    def write(self, record: dict) -> None:
        """Append a record. Raises VideoWriteError if the disk is full."""
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        try:
            written = self._file.write(line)
        except OSError as error:
            raise VideoWriteError(f"{self.path}: cannot be written any further ({error.strerror})") from error
        if written != len(line):  # how a file says for the first time that the disk is full
            raise VideoWriteError(f"{self.path}: cannot be written any further (the disk is full)")
        self._end += written

    def __exit__(self, *exc_info: object) -> None:
        self._file.truncate(self._end)
        self._file.close()
        if self._end:
            os.replace(self._temporary, self.path)
        else:
            os.unlink(self._temporary)
        self._claim.release()
