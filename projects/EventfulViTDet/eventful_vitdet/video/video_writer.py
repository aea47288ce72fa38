"""Writing mp4 files that are complete, or end early but cleanly, or are absent."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
from av.video.frame import PictureType

from ..errors import VideoWriteError
from .containers import cut_to_whole_fragments
from .file_claim import Claim
from .reserved_file import ReservedFile

# H.264 plays everywhere, also in browsers; some builds of FFmpeg lack its encoders, but none lacks MPEG-4.
# Without B-frames, as fragments cannot say that the first frame is shown later than it is decoded.
ENCODERS = {"libx264": {"preset": "veryfast", "crf": "23", "bf": "0"}, "libopenh264": {}, "mpeg4": {"qscale": "4"}}
FALLBACK = "mpeg4"
SUFFIXES = (".mp4", ".m4v", ".mov")
# While it is written, the file consists of fragments that each can be played, so that what is there is never lost;
# closing it makes an ordinary file of them.
MOV_FLAGS = "hybrid_fragmented+frag_keyframe"
KEYFRAME_SECONDS = 1
SLOWEST_FPS = 0.01
MILLISECOND = Fraction(1, 1000)

logger = logging.getLogger(__name__)


class VideoWriter:
    """A context manager that writes BGR frames (H, W, 3) of one size to an mp4 file.

    The file appears under its name when the context ends well. After an error or an interruption nothing is left, or
    with `keep_partial` the frames up to there, as a file that plays. Odd sizes lose their last row or column, as the
    codecs want even ones.
    """

    def __init__(self, path: str, fps: float | None, *, keep_partial: bool = False) -> None:
        """
        Args:
            fps: frames per second; None where each frame comes with its own time.
            keep_partial: keep what was written when something goes wrong.
        """
        self.path = os.path.abspath(path)
        self.fps = fps
        self.keep_partial = keep_partial
        self.frames = 0
        """Frames written so far."""
        stem, suffix = os.path.splitext(self.path)
        if suffix.lower() not in SUFFIXES:
            raise VideoWriteError(f"{path}: videos are written as {', '.join(SUFFIXES)}; give the file such a name")
        self._temporary = f"{stem}.part{suffix}"
        self._claim: Claim | None = None
        self._file: ReservedFile | None = None
        self._container: av.container.OutputContainer | None = None
        self._size = (0, 0)
        self._last_time = -1
        self._next_key = 0

    def __enter__(self) -> VideoWriter:
        try:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            self._claim = Claim(self._temporary)
            self._file = ReservedFile(self._temporary)
        except OSError as error:
            raise VideoWriteError(f"{self.path}: cannot be written to ({error.strerror})") from error
        return self

    def write(self, image: np.ndarray, seconds: float | None = None) -> None:
        """Append a frame.

        Args:
            seconds: when it is shown, for a writer without `fps`.

        Raises VideoWriteError if it differs in size from the first, or if the disk is full.
        """
        height, width = (length - length % 2 for length in image.shape[:2])
        if self._container is None:
            self._size = (width, height)
            self._open()
        if (width, height) != self._size:
            raise VideoWriteError(
                f"{self.path}: frame {self.frames} is {width} x {height} pixels, the first was "
                f"{self._size[0]} x {self._size[1]}"
            )
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image[:height, :width]), format="bgr24")
        frame.pts = self._last_time = self._time(seconds)
        frame.time_base = self._stream.codec_context.time_base
        if frame.pts >= self._next_key:  # by time and not by number, as a camera's frames may come slowly
            frame.pict_type = PictureType.I
            self._next_key = frame.pts + KEYFRAME_SECONDS / frame.time_base
        self._mux(frame)
        self.frames += 1
        if self._file.full:
            raise VideoWriteError(f"{self.path}: the disk is full, after {self.frames} frames")

    def __exit__(self, error_type: type | None, *rest: object) -> None:
        try:
            failure = self._end()
            early = error_type is not None or failure is not None
            if self.frames and (self.keep_partial or not early) and self._plays(failure):
                os.replace(self._temporary, self.path)
                if early:
                    logger.warning("%s: ends early; what was written up to there plays", self.path)
            if error_type is None and failure is not None:
                raise failure
        finally:
            if os.path.exists(self._temporary):
                os.unlink(self._temporary)
            self._claim.release()

    def _end(self) -> VideoWriteError | None:
        """Write what the encoder still holds, and the index; returns what went wrong."""
        failure = None if self._container else VideoWriteError(f"{self.path}: no frame was written")
        # Closed in any case: PyAV would otherwise write to the file when the container is collected.
        for step in (lambda: self._mux(None), self._close) if self._container else ():
            try:
                step()
            except VideoWriteError as error:
                failure = failure or error
        self._container = None
        self._file.close()
        return failure

    def _plays(self, failure: VideoWriteError | None) -> bool:
        # Without an index at the end, there are still the fragments.
        return failure is None or cut_to_whole_fragments(self._temporary)

    def _open(self) -> None:
        try:
            self._container = av.open(self._file, "w", format="mp4", options={"movflags": MOV_FLAGS})
            self._stream = self._add_stream(self._container)
        except (OSError, ValueError, av.error.FFmpegError) as error:
            raise VideoWriteError(f"{self.path}: cannot be written as a video ({error})") from error

    def _add_stream(self, container: av.container.OutputContainer) -> av.VideoStream:
        for name, options in ENCODERS.items():
            if name not in av.codecs_available:
                continue
            if name == FALLBACK:
                say_once("this FFmpeg cannot encode H.264: videos are MPEG-4, which browsers may not play")
            rate = Fraction(max(SLOWEST_FPS, self.fps or 30.0)).limit_denominator(1001)
            stream = container.add_stream(name, rate=rate, options=options)
            stream.width, stream.height = self._size
            stream.pix_fmt = "yuv420p"
            context = stream.codec_context
            context.time_base = MILLISECOND if self.fps is None else 1 / rate
            # In this thread, between the model's frames, and not beside them where it would slow them down.
            context.thread_count = 1
            return stream
        raise VideoWriteError(f"{self.path}: this FFmpeg has none of the encoders {', '.join(ENCODERS)}")

    def _time(self, seconds: float | None) -> int:
        """The frame's time in units of the stream: the next one, or that given, but later than the last."""
        if self.fps is not None or seconds is None:
            return self._last_time + 1
        return max(self._last_time + 1, round(seconds / MILLISECOND))

    def _mux(self, frame: av.VideoFrame | None) -> None:
        self._guard(lambda: self._container.mux(self._stream.encode(frame)))

    def _close(self) -> None:
        self._guard(self._container.close)

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except (OSError, av.error.FFmpegError) as error:
            # PyAV may replace the error of our file by one of its own.
            cause = self._file.error or error
            reason = "the disk is full" if self._file.full else getattr(cause, "strerror", None) or cause
            raise VideoWriteError(f"{self.path}: cannot be written any further ({reason})") from error


@functools.cache
def say_once(message: str) -> None:
    """Log a message the first time it comes up."""
    logger.warning(message)
