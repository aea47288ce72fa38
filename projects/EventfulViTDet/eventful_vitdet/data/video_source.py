"""Frames of whatever a user names: video files, folders or patterns of images or videos, network streams, cameras."""

from __future__ import annotations

import glob
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from ..errors import VideoReadError
from ..structures import SourceFrame
from .streaming import POLL_SECONDS
from .video_reader import decode_video, probe_video, read_image_file

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "rtp", "srt")
DEFAULT_FPS = 30.0
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 15.0
"""Waits between attempts to reach a lost stream: doubled from the first up to the longest."""
NOTICE_SECONDS = 3.0
"""How long a notice stays on the screen."""
PATIENCE_SECONDS = 120.0
"""A stream that stays away for this long is given up."""
FRUITLESS_ANSWERS = 3
"""A video at an address that so often could be reached and had no further frame is over."""
NETWORK_TIMEOUT_MS = 8000
LONGEST_VIDEO = 10**8  # frames

# Failures are reported in a line of our own; OpenCV's FFmpeg, which looks here at its first use, prints more.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

logger = logging.getLogger(__name__)


@dataclass
class Outage:
    """A stream that was lost; it is over when a frame arrives, and not as soon as somebody answers."""

    since: float
    wait: float
    """Seconds until the next attempt."""
    fruitless: int = 0
    """How often it could be reached, and had no further frame."""


class VideoSource:
    """Base class. `frames` may be called again, for another pass."""

    name: str
    """For titles and messages."""
    fps: float
    """Frames per second; a guess where nobody knows."""
    num_frames: int | None
    """None where there is no end, or where it is not known."""
    paths: Sequence[str] = ()
    """The files that it reads, if any."""
    live: bool = False
    """A stream or camera: frames that come faster than they are used are passed over, and there is no seeking."""

    def frames(self, start: int = 0) -> Iterator[SourceFrame]:
        """Frames in order from number `start`, in constant memory. Close the iterator (contextlib.closing) where it is
        left early. Raises VideoReadError."""
        raise NotImplementedError


class FileSource(VideoSource):
    """Video files, one after the other."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Raises VideoReadError for a file that is no video, before any frame is read."""
        self.paths = list(paths)
        infos = [probe_video(path) for path in self.paths]
        self.name = self.paths[0] if len(self.paths) == 1 else f"{len(self.paths)} videos"
        self.fps = infos[0].fps or DEFAULT_FPS
        # Containers without an index do not know their length.
        self.num_frames = sum(info.num_frames for info in infos) if all(i.num_frames for i in infos) else None

    def frames(self, start: int = 0) -> Iterator[SourceFrame]:
        index = 0
        for sequence, path in enumerate(self.paths):
            skip = max(0, start - index)
            if skip and self.num_frames and sequence < len(self.paths) - 1:
                length = probe_video(path).num_frames
                if skip >= length:
                    index += length
                    continue
            index += skip
            for image in decode_video(path, skip):
                yield SourceFrame(index, sequence, index / self.fps, image, path)
                index += 1


class ImageSource(VideoSource):
    """Image files as the frames of one video."""

    def __init__(self, paths: Sequence[str], name: str, fps: float = DEFAULT_FPS) -> None:
        self.paths = list(paths)
        self.name, self.fps, self.num_frames = name, fps, len(self.paths)

    def frames(self, start: int = 0) -> Iterator[SourceFrame]:
        for index, path in enumerate(self.paths[start:], start):
            yield SourceFrame(index, 0, index / self.fps, read_image_file(path), path)


class StreamSource(VideoSource):
    """A network stream or a camera. One that drops is tried again, with growing waits.

    An address of a video with a known length is no live stream: all its frames are given, it ends, and after a loss it
    goes on where it was.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], cv2.VideoCapture],
        *,
        patience: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            name: what to call it; without a password.
            connect: opens it; the result may turn out not to be open.
            patience: seconds after which a lost stream is given up.

        Raises VideoReadError if it cannot be opened now.
        """
        self.name = name
        self.patience = patience
        self._connect = connect
        self._clock = clock
        self._left = threading.Event()
        self.on_notice: Callable[[str], None] = logger.warning
        """Told of losses and returns as they happen."""
        self._capture = self._open()
        if self._capture is None:
            raise VideoReadError(f"{name}: cannot be opened; is it there, switched on, and not in use elsewhere?")
        self.fps = _plausible_fps(self._capture.get(cv2.CAP_PROP_FPS))
        length = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.num_frames = int(length) if 0 < length < LONGEST_VIDEO else None  # streams say nonsense
        self.live = self.num_frames is None

    def frames(self, start: int = 0) -> Iterator[SourceFrame]:
        """Of a live stream the newest frame, each time one is asked for; `start` is then the number of the first."""
        self._left.clear()
        if not self.live:
            yield from self.all_frames(start)
            return
        newest = NewestItem(lambda: self.all_frames(start))
        try:
            with newest as frames:
                # Frames that were passed over leave no gap in the numbers: what is left is still one sequence.
                for index, frame in enumerate(frames, start):
                    yield replace(frame, index=index)
        finally:
            self._left.set()

    def all_frames(self, start: int = 0) -> Iterator[SourceFrame]:
        """Every frame that arrives, which is more than a slow consumer can take."""
        index, sequence, notice, began = start, 0, "", self._clock()
        came_back, outage = began, None
        try:
            while True:
                reached = self._reach(index)
                for image in self._read_until_lost():
                    now = self._clock()
                    if outage is not None:
                        sequence, came_back = sequence + 1, now
                        notice = f"stream was lost for {now - outage.since:.0f} s, started anew"
                        self.on_notice(f"{self.name}: back after {now - outage.since:.1f} s")
                        outage = None
                    shown = notice if now - came_back < NOTICE_SECONDS else ""
                    seconds = now - began if self.live else index / self.fps
                    yield SourceFrame(index, sequence, seconds, image, self.name, shown)
                    index += 1
                outage = outage or Outage(self._clock(), FIRST_WAIT_SECONDS)
                outage.fruitless += reached
                if self._ended(index, outage) or not self._wait_to_try_again(outage):
                    return
        finally:
            self._release()

    def _reach(self, index: int) -> bool:
        """Connect, and go to a frame where that is possible; returns whether anybody answered."""
        if self._capture is None:
            self._capture = self._open()
        if self._capture is not None and not self.live and index > 0:
            self._go_to(index)
        return self._capture is not None

    def _read_until_lost(self) -> Iterator[np.ndarray]:
        while self._capture is not None:
            arrived, image = self._capture.read()
            if not arrived or image is None:
                break
            yield image
        self._release()

    def _go_to(self, index: int) -> None:
        """Go to a frame of a video at an address; frames are passed over where its server cannot jump."""
        self._capture.set(cv2.CAP_PROP_POS_FRAMES, index)
        if int(self._capture.get(cv2.CAP_PROP_POS_FRAMES)) == index:
            return
        self._release()
        self._capture = self._open()
        for _ in range(index):
            if self._capture is None or not self._capture.grab():
                break

    def _ended(self, index: int, outage: Outage) -> bool:
        """Whether a video at an address is over, and not lost."""
        if self.num_frames is None:
            return False
        if index >= self.num_frames - 1:  # it may be one less than said
            return True
        over = outage.fruitless >= FRUITLESS_ANSWERS
        if over:
            self.on_notice(f"{self.name}: ends after {index} of {self.num_frames} frames")
        return over

    def _wait_to_try_again(self, outage: Outage) -> bool:
        """Wait, each time longer; False if nobody is waiting for frames any longer."""
        if self._clock() - outage.since > self.patience:
            raise VideoReadError(f"{self.name}: was lost and did not come back within {self.patience:.0f} s")
        self.on_notice(f"{self.name}: lost; trying again in {outage.wait:g} s")
        self._left.wait(outage.wait)
        outage.wait = min(2 * outage.wait, LONGEST_WAIT_SECONDS)
        return not self._left.is_set()

    def _open(self) -> cv2.VideoCapture | None:
        with quiet_opencv():
            capture = self._connect()
        if capture.isOpened():
            return capture
        capture.release()
        return None

    def _release(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None


class NewestItem:
    """Runs an iterable in a thread and hands its newest item to the consumer; those in between are lost.

    A context manager: leaving it ends the thread at its next item.
    """

    def __init__(self, make_iterator: Callable[[], Iterator]) -> None:
        self._make_iterator = make_iterator
        self._changed = threading.Condition()
        self._items: list = []  # the newest item, or nothing
        self._ended = False
        self._stop = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="stream-reader", daemon=True)

    def __enter__(self) -> Iterator:
        self._thread.start()
        return self._consume()

    def __exit__(self, *exc_info: object) -> None:
        self._stop = True
        self._thread.join(timeout=NETWORK_TIMEOUT_MS / 1000)

    def _run(self) -> None:
        try:
            with closing(self._make_iterator()) as iterator:
                for item in iterator:
                    with self._changed:
                        self._items = [item]
                        self._changed.notify()
                    if self._stop:
                        break
        except Exception as error:  # whatever it is, it belongs to the consumer, who raises it
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify()

    def _consume(self) -> Iterator:
        while True:
            with self._changed:
                while not self._items and not self._ended:
                    self._changed.wait(POLL_SECONDS)  # not for ever: Ctrl-C has to get through
                items, self._items = self._items, []
            if not items:
                break
            yield items[0]
        if self._error is not None:
            raise self._error


def open_source(text: str) -> VideoSource:
    """Open what a user named.

    Args:
        text: a video file or an image, a folder or pattern (quoted `*`) of images or videos, an address such as
            rtsp://..., or the number of a camera.

    Raises VideoReadError, saying what was found and what was expected.
    """
    if re.fullmatch(r"[0-9]{1,9}", text):
        number = int(text)
        return StreamSource(f"camera {number}", lambda: cv2.VideoCapture(number))
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text)
    if scheme is not None:
        return _open_address(text, scheme[1].lower())
    if os.path.isdir(text):
        return _open_files(sorted_naturally(str(path) for path in Path(text).iterdir() if path.is_file()), text)
    if not os.path.exists(text) and glob.has_magic(text):
        return _open_files(sorted_naturally(path for path in glob.glob(text) if os.path.isfile(path)), text)
    if not os.path.exists(text):
        raise VideoReadError(
            f"{text or repr(text)}: there is no such file or folder (streams begin with rtsp:// or http://, a camera "
            "is a small number)"
        )
    return ImageSource([text], text) if is_image(text) else FileSource([text])


def _open_address(text: str, scheme: str) -> VideoSource:
    if scheme not in SCHEMES:
        raise VideoReadError(f"{text}: addresses begin with one of {', '.join(f'{s}://' for s in SCHEMES)}")
    timeouts = [
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, NETWORK_TIMEOUT_MS),
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, NETWORK_TIMEOUT_MS),
    ]
    return StreamSource(hide_password(text), lambda: cv2.VideoCapture(text, cv2.CAP_FFMPEG, timeouts))


def _open_files(paths: list[str], name: str) -> VideoSource:
    """Images if there are any, else videos; files of other kinds are passed over."""
    images = [path for path in paths if is_image(path)]
    videos = [path for path in paths if path.lower().endswith(VIDEO_SUFFIXES)]
    if images and videos:
        raise VideoReadError(f"{name}: both images and videos; name one kind, such as '*{Path(images[0]).suffix}'")
    if images:
        return ImageSource(images, name)
    if videos:
        return FileSource(videos)
    known = ", ".join(IMAGE_SUFFIXES + VIDEO_SUFFIXES)
    raise VideoReadError(f"{name}: no image and no video among {len(paths)} files (known are {known})")


def is_image(path: str) -> bool:
    """Whether a file is an image, by its name."""
    return path.lower().endswith(IMAGE_SUFFIXES)


def sorted_naturally(paths: Iterator[str]) -> list[str]:
    """Sorted with numbers as numbers: 2.jpg before 10.jpg."""

    def key(path: str) -> list:
        parts = re.split(r"([0-9]+)", path)
        return [(int(part), part) if i % 2 else (0, part) for i, part in enumerate(parts)]

    return sorted(paths, key=key)


def hide_password(address: str) -> str:
    """An address without the user and password that it may hold."""
    return re.sub(r"(?<=://)[^/@]*@", "", address)


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Keep OpenCV from printing about what fails; callers say it in one line."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def _plausible_fps(fps: float) -> float:
    # Streams without a frame rate report 0, or the rate of their clock's ticks.
    return float(fps) if 1 <= fps <= 240 else DEFAULT_FPS
