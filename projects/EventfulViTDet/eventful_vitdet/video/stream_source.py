"""Network streams and cameras as a source: what drops is tried again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ..errors import VideoReadError
from ..structures import SourceFrame
from .background import BackgroundIterator, NewestItem, call_aside
from .connections import Connection
from .source import DEFAULT_FPS, VideoSource

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 15.0
"""Waits between attempts to reach a lost stream: doubled from the first up to the longest."""
NOTICE_SECONDS = 3.0
"""How long a notice stays on the screen."""
PATIENCE_SECONDS = 120.0
"""A stream that stays away for this long is given up."""
FRUITLESS_ANSWERS = 3
"""A video at an address that so often could be reached and had no further frame is over."""
LEAVING_SECONDS = 0.5
"""Leaving waits so long for a thread that waits for the network; then it is left to itself."""
READ_AHEAD = 2

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

    An address of a file is no live stream: all its frames are given, with its own times; it ends, and after a loss it
    continues where it was.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Connection | None],
        *,
        may_be_away: bool = False,
        patience: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Event, float], object] = threading.Event.wait,
    ) -> None:
        """
        Args:
            name: what to call it; without a password.
            connect: opens it; None where that fails.
            may_be_away: where it cannot be opened now, `frames` tries again, for as long as it takes.
            patience: seconds after which a lost stream is given up.
            wait: waits for an event, but not longer than so many seconds.

        Raises VideoReadError if it cannot be opened now, unless it may be away.
        """
        self.name = name
        self.patience = patience
        self.connect, self.clock, self.wait = connect, clock, wait
        self.on_notice: Callable[[str], None] = logger.warning
        """Told of losses and returns as they happen."""
        self.is_away = True
        """It could not be opened so far: whether it is live, and how fast, is a guess."""
        self.fps, self.live, self.num_frames = DEFAULT_FPS, True, None
        self._left = threading.Event()
        self._first = call_aside(connect)
        if self._first is not None:
            self.meet(self._first)
        elif not may_be_away:
            raise VideoReadError(f"{name}: cannot be opened; is it there, switched on, and not in use elsewhere?")

    def meet(self, connection: Connection) -> None:
        """Take over what the first connection tells of the source."""
        self.fps = connection.fps or DEFAULT_FPS
        self.live = connection.live
        self.pixel_aspect = connection.pixel_aspect
        self.num_frames = None if self.live else connection.num_frames
        self.is_away = False

    def frames(self, start: int = 0, every: int = 1) -> Iterator[SourceFrame]:
        """Of a live stream the newest frame, each time one is asked for; `start` is then the number of the first."""
        # One for each pass: a thread that was left to itself must not wake up in the next.
        self._left = left = threading.Event()
        playback = _Playback(self, self._take_first(), left)
        try:
            if self.is_away and not playback.wait_for_first_signal():
                return
            if self.live:
                with NewestItem(lambda: playback.frames(start), LEAVING_SECONDS, left) as frames:
                    # Frames that were passed over leave no gap in the numbers: what is left is still one sequence.
                    for index, frame in enumerate(frames, start):
                        yield replace(frame, index=index)
            else:
                ahead = BackgroundIterator(lambda: playback.frames(start, every), READ_AHEAD, LEAVING_SECONDS, left)
                with ahead as frames:
                    yield from frames
        finally:
            left.set()

    def leave(self) -> None:
        self._left.set()

    def _take_first(self) -> Connection | None:
        """The connection that was opened to see whether it can be; for the first who asks."""
        first, self._first = self._first, None
        return first


class _Playback:
    """One pass over a stream, with its connection."""

    def __init__(self, source: StreamSource, connection: Connection | None, left: threading.Event) -> None:
        """
        Args:
            left: set as soon as nobody waits for frames any longer.
        """
        self._source = source
        self._connection = connection
        self._left = left
        self._is_over = False

    def wait_for_first_signal(self) -> bool:
        """Try to reach a source that never was, without end, as nobody knows when it is switched on.

        False if nobody is waiting for frames any longer.
        """
        source, wait = self._source, FIRST_WAIT_SECONDS
        while not self._reach(-1.0):
            if self._left.is_set():
                return False
            source.on_notice(f"{source.name}: no signal, trying again in {wait:g} s")
            source.wait(self._left, wait)
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)
        source.meet(self._connection)
        return True

    def frames(self, start: int = 0, every: int = 1) -> Iterator[SourceFrame]:
        """Every frame that arrives, which is more than a slow consumer can take."""
        source, clock = self._source, self._source.clock
        index, sequence, notice, began = (start if source.live else 0), 0, "", clock()
        came_back, outage, last = began, None, -1.0
        try:
            while True:
                reached = self._reach(last)
                for seconds in self._seconds_of_frames(last):
                    last, now = seconds, clock()
                    if outage is not None:
                        sequence, came_back = sequence + 1, now
                        notice = f"stream was lost for {now - outage.since:.0f} s, started again"
                        source.on_notice(f"{source.name}: back after {now - outage.since:.1f} s")
                        outage = None
                    if index >= start and (index - start) % every == 0:
                        shown = notice if now - came_back < NOTICE_SECONDS else ""
                        when, duration = (now - began, 0.0) if source.live else (seconds, 1 / source.fps)
                        image = self._connection.image()
                        yield SourceFrame(index, sequence, when, image, source.name, shown, every, duration)
                    index += 1
                outage = outage or Outage(clock(), FIRST_WAIT_SECONDS)
                outage.fruitless += reached
                if self._has_ended(index, outage) or not self._wait_to_try_again(outage):
                    return
        finally:
            self._close()

    def _reach(self, seconds: float) -> bool:
        """Connect, and of a file go to where it was left; returns whether anybody answered."""
        if self._connection is None:
            self._connection = self._source.connect()
            if self._connection is not None and not self._source.live and seconds > 0:
                self._connection.go_to(seconds)
        return self._connection is not None

    def _seconds_of_frames(self, seconds: float) -> Iterator[float]:
        """Take frames until they end, of a file those behind a time; yields the time of each."""
        connection = self._connection
        while connection is not None and not self._left.is_set() and connection.grab():
            if self._source.live or connection.seconds > seconds:
                yield connection.seconds
        self._is_over = connection is not None and connection.is_over
        self._close()

    def _has_ended(self, index: int, outage: Outage) -> bool:
        """Whether a file at an address is over, and not lost."""
        source = self._source
        if source.live or self._is_over:
            return not source.live
        over = outage.fruitless >= FRUITLESS_ANSWERS
        if over:
            of = "" if source.num_frames is None else f" of {source.num_frames}"
            source.on_notice(f"{source.name}: ends after {index}{of} frames")
        return over

    def _wait_to_try_again(self, outage: Outage) -> bool:
        """Wait, each time longer; False if nobody is waiting for frames any longer."""
        source = self._source
        if self._left.is_set():
            return False
        if source.clock() - outage.since > source.patience:
            raise VideoReadError(f"{source.name}: was lost and did not come back within {source.patience:.0f} s")
        source.on_notice(f"{source.name}: lost; trying again in {outage.wait:g} s")
        source.wait(self._left, outage.wait)
        outage.wait = min(2 * outage.wait, LONGEST_WAIT_SECONDS)
        return not self._left.is_set()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
