"""All errors of the package whose messages are written for the user, and how an error reads as one line.

Commands show a `UserError` as one line. Everything else that is raised is a defect and shows its traceback. So an
error of a library that the user can put right is turned into one of these where it is raised, and nowhere else.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Errors that any write may meet, of libraries too; they are never a defect."""


class UserError(Exception):
    """Something that the user can put right; the message names file or key and says what to do."""


class ConfigError(UserError, ValueError):
    """A configuration key, an option or an argument that cannot be."""


class FileError(UserError, OSError):
    """A file or folder that cannot be read or written: (errno, reason, path), as the system's error, or a message."""


class DataError(UserError):
    """Something about the user's data is wrong; the message names the file and says what was expected."""


class DatasetError(DataError):
    """An annotation file cannot be used."""


class VideoReadError(DataError):
    """A frame of a video or of a frame folder cannot be read.

    `file_name` is the file that is at fault. `video_id` and `frame_id` are those of the data set; both are None where
    a file is read outside of one.
    """

    def __init__(
        self, message: str, *, file_name: str = "", video_id: int | None = None, frame_id: int | None = None
    ) -> None:
        super().__init__(message)
        self.file_name = file_name
        self.video_id = video_id
        self.frame_id = frame_id


class VideoWriteError(DataError):
    """A video, or a file beside it, cannot be written."""


class LiveError(DataError):
    """The live page cannot be served as asked; the message says why."""


class ReportError(DataError):
    """There is nothing that a report could be made of."""


class CheckpointError(UserError, RuntimeError):
    """A checkpoint cannot be used; the message names the file and says why."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint file cannot be read, or holds no sound weights; another file of the same training may do."""


class DetectionError(UserError, ValueError):
    """A model gave boxes or scores that are no numbers."""


class EvaluationError(UserError, ValueError):
    """What is evaluated cannot be: no ground truth, classes that the data set lacks, damaged records."""


class TrainingError(UserError, RuntimeError):
    """A training cannot continue, as its loss is no number."""


class MissingPackageError(UserError, ImportError):
    """A package that is not installed is needed for what was asked; the message says how to install it."""


class ToolError(UserError, RuntimeError):
    """An error of the user that another process of this run has met."""


def is_for_user(error: BaseException | None) -> bool:
    """Whether the message of an error is enough: the user can put it right."""
    return isinstance(error, UserError) or (isinstance(error, OSError) and error.errno in DISK_FULL)


def describe_error(error: BaseException) -> str:
    """The message of an error in one line."""
    text = str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if text.startswith("Caught ") and len(lines) > 1:
        # From a worker process of a DataLoader, which puts its traceback into the message: "Class: message" ends it.
        return lines[-1].partition(": ")[2] or lines[-1]
    if isinstance(error, OSError) and error.strerror:
        lines = [f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror]
        if error.errno in DISK_FULL and error.filename is None:
            lines.append("(is the disk that holds OUTPUT_DIR full?)")
    return without_controls(" ".join(lines)) or type(error).__name__


def without_controls(text: str) -> str:
    """A message that does not steer a terminal: control characters, which names in files may have, as escapes."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], text)


def shorten(names: Sequence[str], limit: int = 8) -> str:
    """The first few names of a list, and how many more there are."""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
