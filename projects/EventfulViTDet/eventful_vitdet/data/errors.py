"""Errors of the data part. Their messages are written for the owner of the data and stand alone."""

from __future__ import annotations


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
