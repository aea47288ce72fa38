"""Which exceptions are the user's to mend, and how they read as one line."""

from __future__ import annotations

import errno

from .checkpoint import CheckpointError
from .data.errors import DataError


class ToolError(RuntimeError):
    """An error of the user that another process of this run has met."""


USER_ERRORS = (DataError, CheckpointError, ToolError, ValueError, KeyError, OSError, FloatingPointError)
"""Errors whose message is for the user; anything else is a defect and shows its traceback."""


def describe_error(error: BaseException) -> str:
    """The message of an error in one line."""
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if text.startswith("Caught ") and len(lines) > 1:
        # From a worker process of a DataLoader, which puts its traceback into the message: "Class: message" ends it.
        return lines[-1].partition(": ")[2] or lines[-1]
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
        lines.append("(is the disk that holds OUTPUT_DIR full?)")
    return " ".join(lines) or type(error).__name__
