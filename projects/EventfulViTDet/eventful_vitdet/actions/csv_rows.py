"""Reading the CSV files of data sets of clips: columns by name, with messages that name file, line and column."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import DatasetError

CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:\.\d+)?)")


@dataclass(frozen=True)
class CsvRow:
    """A line of a CSV file."""

    file: str
    line: int
    values: dict[str, str]

    @property
    def place(self) -> str:
        """For messages."""
        return f"{self.file}, line {self.line}"

    def text(self, column: str) -> str:
        """A value that is not empty."""
        value = (self.values.get(column) or "").strip()
        if not value:
            raise DatasetError(f"{self.place}: column {column} is empty")
        return value

    def number(self, column: str, classes: int | None = None) -> int:
        """A class, 0 or larger, and below `classes` if that is given."""
        value = self.text(column)
        if not re.fullmatch(r"\d{1,9}", value):
            raise DatasetError(f"{self.place}: column {column} has {value!r}; expected a number, 0 or larger")
        if classes is not None and int(value) >= classes:
            raise DatasetError(
                f"{self.place}: column {column} has {value}, but there are {classes} classes, 0 to {classes - 1}"
            )
        return int(value)

    def seconds(self, column: str) -> float:
        """A time: HH:MM:SS.ss, MM:SS.ss or seconds."""
        value = self.text(column)
        if found := CLOCK.fullmatch(value):
            return 3600 * int(found[1] or 0) + 60 * int(found[2]) + float(found[3])
        if re.fullmatch(r"\d+(\.\d+)?", value):
            return float(value)
        raise DatasetError(f"{self.place}: column {column} has {value!r}; expected a time such as 00:01:02.34")

    def span(self, start_column: str, stop_column: str) -> tuple[float, float]:
        """A start and a later stop in seconds."""
        start, stop = self.seconds(start_column), self.seconds(stop_column)
        if stop <= start:
            raise DatasetError(
                f"{self.place}: {stop_column} ({self.text(stop_column)}) is not after {start_column} "
                f"({self.text(start_column)})"
            )
        return start, stop


def read_csv(path: str) -> list[CsvRow]:
    """The lines of a CSV file whose first one names the columns. Raises DatasetError if it has none."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            rows = [CsvRow(path, reader.line_num, values) for values in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: cannot be read as CSV: {error}") from error
    if not rows:
        raise DatasetError(f"{path}: lists no clips")
    return rows


def check_columns(rows: Sequence[CsvRow], columns: Sequence[str]) -> None:
    """Raise DatasetError unless a file's lines, of which there are some, have these columns."""
    there = [name for name in rows[0].values if name is not None]  # None: of values without a column
    missing = [name for name in columns if name not in there]
    if missing:
        raise DatasetError(
            f"{rows[0].file}: column {missing[0]} is missing from its first line; there are: {', '.join(there)}"
        )
