"""Cameras, by OpenCV, and addresses in a network, by PyAV: opened, and read frame by frame."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Protocol

import av
import cv2
import numpy as np

from ..errors import VideoReadError
from .container import decode_packet, video_stream
from .frame_images import ImageMaker
from .source import DEFAULT_FPS

NETWORK_TIMEOUT_SECONDS = 8.0
"""For opening, for learning what is sent, and for each part of it."""
NETWORK_OPTIONS = {"rtsp_transport": "tcp"}
NO_BYTE_SEEK = 0x8000
"""FFmpeg's flag of formats whose first file is not all of it, such as lists of segments."""
JOINT_SECONDS = 0.5
"""A frame that is so much earlier than the one before it is the first of another recording."""
LAST_SECONDS = 1.0
"""What ends so shortly before its stated end has ended."""
PLAUSIBLE_FPS = (1, 240)
"""Streams without a frame rate report 0, or the rate of their clock's ticks."""

OPENCV_LOG = getattr(cv2.utils, "logging", cv2)
"""Where OpenCV 5 has the functions for its log; OpenCV 4 has them at the top."""
SILENT = 0
_LOG_LEVEL = threading.Lock()


class Connection(Protocol):
    """An open camera or address."""

    fps: float
    """0 where it does not tell."""
    live: bool
    """It has no end of its own."""
    pixel_aspect: Fraction
    """Width of a pixel by its height, when it is shown."""
    num_frames: int | None
    """About how many it has; None where that is not known."""
    seconds: float
    """When the frame taken last is shown; not of live ones."""
    is_over: bool
    """It has no further frame, and did not just break off."""

    def grab(self) -> bool:
        """Take the next frame; False where none comes."""

    def image(self) -> np.ndarray:
        """The frame taken last, BGR (H, W, 3)."""

    def go_to(self, seconds: float) -> None:
        """Go to a place at or before a time, where that is possible; the next frame tells how well it was."""

    def close(self) -> None:
        """Let it go."""


class CameraConnection:
    """A camera of this machine."""

    live, num_frames, seconds, is_over = True, None, 0.0, False
    pixel_aspect = Fraction(1)

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self._capture = capture
        self._image: np.ndarray | None = None
        self.fps = _plausible(capture.get(cv2.CAP_PROP_FPS))

    def grab(self) -> bool:
        arrived, self._image = self._capture.read()
        return arrived and self._image is not None

    def image(self) -> np.ndarray:
        return self._image

    def go_to(self, seconds: float) -> None:
        pass

    def close(self) -> None:
        self._capture.release()


class AddressConnection:
    """A stream, or a file, at an address."""

    def __init__(self, container: av.container.InputContainer, name: str) -> None:
        """Raises VideoReadError if it holds no video."""
        self._container = container
        self._stream = video_stream(container, name)
        self._make_image = ImageMaker("BGR")
        self._frames = self._decode()
        self._frame: av.VideoFrame | None = None
        self._broke_off = False
        duration = container.duration or 0
        self._duration = duration / av.time_base
        whole = container.size > 0 and not container.format.flags & NO_BYTE_SEEK
        self.live = duration <= 0 and not whole
        self.fps = _plausible(float(self._stream.average_rate or 0))
        self.pixel_aspect = Fraction(self._stream.sample_aspect_ratio or 1)
        self.num_frames = self._stream.frames or round(self._duration * self.fps) or None
        self._origin = (container.start_time or 0) / av.time_base
        self.seconds = 0.0

    def _decode(self) -> Iterator[av.VideoFrame]:
        try:
            for packet in self._container.demux(self._stream):
                ends = packet.size == 0 and packet.dts is None
                yield from decode_packet(self._stream, None if ends else packet).frames
        except (av.error.FFmpegError, OSError):
            self._broke_off = True

    def grab(self) -> bool:
        self._frame = next(self._frames, None)
        if self._frame is None:
            return False
        next_seconds = self.seconds + 1 / (self.fps or DEFAULT_FPS)
        if self._frame.pts is not None:
            seconds = float(self._frame.pts * self._stream.time_base) - self._origin
            if seconds < self.seconds - JOINT_SECONDS:
                self._origin -= next_seconds - seconds
                seconds = next_seconds
            self.seconds = seconds
        else:
            self.seconds = next_seconds
        return True

    @property
    def is_over(self) -> bool:
        if self.live or self._frame is not None or self._broke_off:
            return False
        return self.seconds >= self._duration - max(LAST_SECONDS, 2 / (self.fps or 1))

    def image(self) -> np.ndarray:
        return self._make_image(self._frame)

    def go_to(self, seconds: float) -> None:
        try:
            self._container.seek(int((seconds + self._origin) * av.time_base))
        except (av.error.FFmpegError, OSError):
            pass

    def close(self) -> None:
        self._frames.close()
        self._container.close()


def connect_camera(number: int) -> Connection | None:
    """A camera by its number; None where there is none."""
    with quiet_opencv():
        capture = cv2.VideoCapture(number)
    if capture.isOpened():
        return CameraConnection(capture)
    capture.release()
    return None


def connect_address(address: str) -> Connection | None:
    """What is at an address; None where nobody answers, or nothing that can be opened."""
    limits = (NETWORK_TIMEOUT_SECONDS, NETWORK_TIMEOUT_SECONDS)
    try:
        container = av.open(address, container_options=NETWORK_OPTIONS, metadata_errors="replace", timeout=limits)
    except (av.error.FFmpegError, OSError, ValueError, IndexError):
        return None
    try:
        return AddressConnection(container, hide_secrets(address))
    except VideoReadError:
        container.close()
        return None


def hide_secrets(address: str) -> str:
    """An address without user, password and query, whatever characters these hold; other texts as they are."""
    scheme, separator, rest = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)?(:/+)?(.*)", address, re.DOTALL).groups()
    if not scheme or not separator:
        return address
    # Up to the last "@" first: a password may hold what looks like the beginning of a query.
    return f"{scheme}{separator}{re.split('[?#]', rest.rpartition('@')[2])[0]}"


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV from printing about what fails; callers say it in one line. One thread at a time, since the level is
    of the process: two would leave it silent for good."""
    with _LOG_LEVEL:
        level = OPENCV_LOG.getLogLevel()
        OPENCV_LOG.setLogLevel(SILENT)
        try:
            yield
        finally:
            OPENCV_LOG.setLogLevel(level)


def _plausible(fps: float) -> float:
    return float(fps) if PLAUSIBLE_FPS[0] <= fps <= PLAUSIBLE_FPS[1] else 0.0
