"""All errors of the package whose messages are written for the user, and how an error reads as one line."""

from __future__ import annotations

import errno


class DataError(Exception):
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


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used; the message names the file and says why."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint file cannot be read, or holds no sound weights; another file of the same training may do."""


class DetectionError(ValueError):
    """A model gave boxes or scores that are no numbers."""


class EvaluationError(ValueError):
    """What is evaluated cannot be: no ground truth, classes that the data set lacks, damaged records."""


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
