"""Network streams and cameras as a source: what drops is tried again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ..errors import VideoReadError
from ..structures import SourceFrame
from .background import NewestItem
from .source import DEFAULT_FPS, VideoSource

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

logger = logging.getLogger(__name__)


@dataclass
class Outage:
    """A stream that was lost; it is over when a frame arrives, and not as soon as somebody answers."""

    since: float
    wait: float
    """Seconds until the next attempt."""
    fruitless: int = 0
    """How often it could be reached, and had no further frame."""


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
        newest = NewestItem(lambda: self.all_frames(start), NETWORK_TIMEOUT_MS / 1000)
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
