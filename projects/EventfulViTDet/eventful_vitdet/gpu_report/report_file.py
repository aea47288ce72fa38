"""The report's JSON file, which a later call continues, and the markdown beside it."""

from __future__ import annotations

import json
from pathlib import Path

from ..files import make_writable_folder, write_json

JSON_NAME = "gpu_report.json"
MARKDOWN_NAME = "gpu_report.md"


class ReportFileError(Exception):
    """The report's folder cannot be used; the message says why, and what to do."""


def write_strict_json(path: Path, value: object) -> None:
    """Write JSON whole or not at all; numbers that are none, such as the error of a NaN, become strings."""
    write_json(str(path), _strict(value))


def _strict(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(item) for item in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    return value


def load_report(folder: Path, machine: dict[str, str], restart: bool) -> dict:
    """The report in a folder as far as it goes, or an empty one.

    Args:
        restart: take an empty one in place of one that cannot be continued here.

    Raises:
        ReportFileError: the folder cannot be written, or holds a report that cannot be continued here.
    """
    try:
        make_writable_folder(folder)
    except OSError as error:
        raise ReportFileError(f"--output {folder} cannot be written to: {error.strerror or error}") from error
    empty = {"machine": machine, "parts": {}}
    path = folder / JSON_NAME
    if not path.exists():
        return empty
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        known = report["machine"]
        finished = dict(report["parts"])
    except (ValueError, KeyError, TypeError) as error:
        if restart:
            return empty
        raise ReportFileError(f"{path} is no report ({error}); remove it, or add --restart") from error
    if known != machine and restart:
        return empty
    if known != machine:
        differing = ", ".join(f"{key} {known.get(key)} there, {value} here" for key, value in machine.items()
                              if known.get(key) != value)  # fmt: skip
        raise ReportFileError(f"{path} is of another machine ({differing}); choose another --output, or add --restart")
    return {"machine": machine, "parts": finished}
