"""Writing mp4 files that are complete or absent."""

from __future__ import annotations

import functools
import logging
import os

import cv2
import numpy as np

from ..data.errors import DataError

# H.264 plays everywhere, also in browsers, but not every OpenCV build may encode it; MPEG-4 is always there.
CODECS = ("avc1", "mp4v")

logger = logging.getLogger(__name__)


class VideoWriteError(DataError):
    """A video cannot be written."""


class VideoWriter:
    """A context manager that writes BGR frames (H, W, 3) of one size to an mp4 file.

    The file appears under its name when the context ends well; otherwise nothing is left. Odd sizes lose
    their last row or column, as both codecs want even ones.
    """

    def __init__(self, path: str, fps: float) -> None:
        self.path = os.path.abspath(path)
        self.fps = fps
        stem, suffix = os.path.splitext(self.path)
        self._temporary = f"{stem}.part{suffix or '.mp4'}"
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._written = 0

    def __enter__(self) -> VideoWriter:
        try:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
        except OSError as error:
            raise VideoWriteError(f"{self.path}: cannot make its folder ({error.strerror})") from error
        return self

    def write(self, image: np.ndarray) -> None:
        """Append a frame. Raises VideoWriteError if it differs in size from the first."""
        height, width = (length - length % 2 for length in image.shape[:2])
        if self._writer is None:
            self._size = (width, height)
            self._writer = self._open()
        if (width, height) != self._size:
            raise VideoWriteError(
                f"{self.path}: frame {self._written} is {width} x {height} pixels, the first was "
                f"{self._size[0]} x {self._size[1]}"
            )
        self._writer.write(np.ascontiguousarray(image[:height, :width]))
        self._written += 1

    def __exit__(self, error_type: type | None, *rest: object) -> None:
        if self._writer is not None:
            self._writer.release()
        try:
            if error_type is None:
                self._check()
                os.replace(self._temporary, self.path)
        finally:
            if os.path.exists(self._temporary):
                os.unlink(self._temporary)

    def _open(self) -> cv2.VideoWriter:
        # A codec that is missing is no error here; OpenCV and FFmpeg would print a page about it.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        log_level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            for codec in CODECS:
                writer = cv2.VideoWriter(
                    self._temporary, cv2.VideoWriter_fourcc(*codec), max(1.0, self.fps), self._size
                )
                if writer.isOpened():
                    if codec != CODECS[0]:
                        say_once("this OpenCV cannot encode H.264: videos are MPEG-4, which browsers may not play")
                    return writer
        finally:
            cv2.utils.logging.setLogLevel(log_level)
        raise VideoWriteError(f"{self.path}: OpenCV cannot open it for writing with any of {', '.join(CODECS)}")

    def _check(self) -> None:
        if self._writer is None:
            raise VideoWriteError(f"{self.path}: no frame was written")
        # OpenCV reports no error while writing: a full disk shows only here.
        reader = cv2.VideoCapture(self._temporary)
        found = int(reader.get(cv2.CAP_PROP_FRAME_COUNT)) if reader.isOpened() else 0
        reader.release()
        if found != self._written:
            raise VideoWriteError(
                f"{self.path}: only {found} of {self._written} frames were written; is the disk full?"
            )


@functools.cache
def say_once(message: str) -> None:
    """Log a message the first time it comes up."""
    logger.warning(message)
