"""Files of JSON lines and of CSV, of which every line is whole, whatever ends the writing."""

from __future__ import annotations

import csv
import io
import json
import os
from typing import TypeVar

from ..errors import VideoWriteError
from .file_claim import Claim

Writer = TypeVar("Writer", bound="LinesWriter")


class LinesWriter:
    """A context manager that writes records, a line each.

    The file appears under its name at the end, also when an error or Ctrl-C ends the writing: with the lines
    up to there. Without any line, nothing is left.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._temporary = f"{self.path}.part"
        self._end = 0

    def __enter__(self: Writer) -> Writer:
        try:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            self._claim = Claim(self._temporary)
            self._file = open(self._temporary, "wb", buffering=0)
        except OSError as error:
            raise VideoWriteError(f"{self.path}: cannot be written to ({error.strerror})") from error
        return self

    def write(self, record: dict) -> None:
        """Append a record. Raises VideoWriteError if the disk is full."""
        line = self._encode(record)
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

    def _encode(self, record: dict) -> bytes:
        """The record's line, with its end."""
        raise NotImplementedError


class JsonLinesWriter(LinesWriter):
    """Writes a line of strict JSON for each record."""

    def _encode(self, record: dict) -> bytes:
        return json.dumps(record, allow_nan=False).encode() + b"\n"


class CsvWriter(LinesWriter):
    """Writes a table. The keys of the first record are its columns, which all records have."""

    def _encode(self, record: dict) -> bytes:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(record), lineterminator="\n")
        if not self._end:
            writer.writeheader()
        writer.writerow(record)
        return text.getvalue().encode()
