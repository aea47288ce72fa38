"""One input of the live page, read in a thread of its own: one that delivers nothing holds up nobody."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

from ..structures import SourceFrame
from ..video import VideoSource
from .settings import Limits
from .updates import EVENTFUL, HISTORY, Cost, Picture, Update

RATE_FRAMES = 20
"""Frames of which a rate is taken."""
NOTICE_SECONDS = 5.0
SILENT_SECONDS = 4.0
"""After which a camera that delivers nothing, and says nothing of it either, is shown as lost. Reading from a network
gives up only later."""
MISSED_FRAMES = 3
"""Of a camera that is slower than that, it takes so many of its frames."""


@dataclass(frozen=True)
class PassEnd:
    """What comes behind the last frame of a pass over a source."""

    error: Exception | None = None


class FrameReader:
    """Reads a source again and again, as it is told, and has at most one frame ready.

    Of a file that is the next frame, which waits to be taken; of a live source the newest.
    """

    def __init__(self, source: VideoSource, wake: Callable[[], None]) -> None:
        """
        Args:
            wake: called, by the reader's thread, when there is something new.
        """
        self._source, self._wake = source, wake
        self._changed = threading.Condition()
        self._item: SourceFrame | PassEnd | None = None
        self._start: int | None = 0
        """Where the pass begins that has been asked for, and not begun."""
        self._stop = False
        self._thread = threading.Thread(target=self._run, name=f"reader of {source.name}", daemon=True)

    def begin(self) -> bool:
        """Start reading; False if that has been done before."""
        begins = self._thread.ident is None
        if begins:
            self._thread.start()
        return begins

    def end(self) -> None:
        """Let the thread end, as soon as it comes out of what it is reading."""
        with self._changed:
            self._stop = True
            self._changed.notify()
        self._source.leave()

    def has_ended(self, patience: float) -> bool:
        """Whether the thread has ended, within so many seconds."""
        if self._thread.ident is not None:  # it was started
            self._thread.join(patience)
        return not self._thread.is_alive()

    def go_to(self, start: int) -> None:
        """Begin another pass, at a frame."""
        with self._changed:
            self._start, self._item = start, None
            self._changed.notify()

    def peek(self) -> SourceFrame | PassEnd | None:
        """What is ready; it stays."""
        return self._item

    def take(self) -> SourceFrame | PassEnd | None:
        """What is ready, and make place for the next."""
        with self._changed:
            item, self._item = self._item, None
            self._changed.notify()
        return item

    def _run(self) -> None:
        while (start := self._next_start()) is not None:
            error = None
            try:
                with closing(self._source.frames(start)) as frames:
                    for frame in frames:
                        if not self._offer(frame):
                            break
            except Exception as raised:  # whatever it is, the session tells or raises it
                error = raised
            self._offer(PassEnd(error))

    def _next_start(self) -> int | None:
        """Wait to be told where to begin; None at the end."""
        with self._changed:
            while self._start is None and not self._stop:
                self._changed.wait()
            start, self._start = self._start, None
            return None if self._stop else start

    def _offer(self, item: SourceFrame | PassEnd) -> bool:
        """Make an item the one that is ready; False if it is not wanted any more."""
        with self._changed:
            while self._item is not None and not self._source.live and not self._is_elsewhere():
                self._changed.wait()
            if self._is_elsewhere():
                return False
            is_news, self._item = self._item is None or isinstance(item, PassEnd), item
        if is_news:
            self._wake()
        return True

    def _is_elsewhere(self) -> bool:
        return self._stop or self._start is not None


class Camera:
    """One input: its reader, when its next frame is due, and what viewers are told of it.

    Used by the session's thread; by others while they hold the session's condition.
    """

    def __init__(
        self, source: VideoSource, update: Update, wake: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """
        Args:
            update: what viewers are told before the first frame.
            wake: called when the reader has something new.
        """
        self.source, self.update = source, update
        self.reader = FrameReader(source, wake)
        self.due = 0.0
        """When the next frame is to be shown."""
        self.one_frame = False
        """Show one frame although paused."""
        self.halted = False
        """At the end, or at an error: it waits to be told to go somewhere."""
        self.tokens: int | None = None
        """Tokens of its last frame."""
        self.full_gflops: float | None = None
        """Of its last frame that was computed in full, or of the dense model beside it."""
        self._clock = clock
        self._costs: deque[Cost] = deque(maxlen=HISTORY)
        self._times: deque[float] = deque(maxlen=RATE_FRAMES)
        self._heard = clock()
        self._position = 0
        self._notice, self._notice_until = "", 0.0

    def begin(self) -> None:
        """Start reading, unless that has been done."""
        if self.reader.begin():
            self._heard = self._clock()

    def go_to(self, index: int) -> None:
        """Continue at a frame."""
        self._position, self.halted = index, False
        self.reader.go_to(index)

    def seek(self, index: int) -> None:
        """Show a frame at once; the one that comes next anyway needs no jump."""
        self.one_frame = True
        if index != self._position or self.halted:
            self.go_to(index)

    def halt(self) -> None:
        """Wait to be told to go somewhere."""
        self.halted, self.one_frame = True, False

    def limits(self, common: Limits) -> Limits:
        """What can be asked of this camera."""
        return replace(common, num_frames=self.source.num_frames, seekable=not self.source.live)

    @property
    def is_at_start(self) -> bool:
        """Whether no frame was taken since the beginning."""
        return self._position == 0

    @property
    def is_ready(self) -> bool:
        """Whether a frame is to be taken when it is due."""
        return not self.halted and isinstance(self.reader.peek(), SourceFrame)

    def take(self, now: float) -> SourceFrame:
        """The frame that is ready, to be shown at a time."""
        frame = self.reader.take()
        if self.source.live:  # frames that were passed over leave no gap: what is left is still one sequence
            frame = replace(frame, index=self._position)
        began = now if self.one_frame else max(now, self.due)  # one that comes early is shown no longer for it
        self.due = began + (0.0 if self.source.live else frame.duration or 1 / self.source.fps)
        self.one_frame = False
        self._position = frame.index + 1
        return frame

    def is_silent(self) -> bool:
        """Whether a live source has delivered nothing for long, also by its own measure; to be asked often."""
        if self.reader.peek() is not None:
            self._heard = self._clock()
        usual = MISSED_FRAMES / self._rate() if self._rate() else 0.0
        return self.source.live and self._clock() - self._heard > max(SILENT_SECONDS, usual)

    @property
    def next_serial(self) -> int:
        """The number of the next cost."""
        return self._costs[-1].serial + 1 if self._costs else 0

    def add_cost(self, cost: Cost) -> None:
        """Note what a frame has cost."""
        self._costs.append(cost)
        if cost.dense is not None:
            self.full_gflops = cost.dense[0]
        elif cost.kind != EVENTFUL:
            self.full_gflops = cost.gflops

    def lose(self, notice: str) -> None:
        """Tell viewers that nothing comes, and why."""
        self.update = replace(self.update, notice=notice, lost=True, frames_per_second=0.0)

    def show(self, frame: SourceFrame, began: float, picture: Picture, tokens: int) -> None:
        """Tell viewers of a frame that was begun at a time, of a model with so many tokens."""
        self.tokens = tokens
        self._times.append(began)
        if frame.notice:
            self._notice, self._notice_until = frame.notice, began + NOTICE_SECONDS
        notice = self._notice if began < self._notice_until else ""
        self.update = replace(
            self.update, picture=picture, costs=tuple(self._costs), frames_per_second=self._rate(), notice=notice,
            lost=False, error="",
        )  # fmt: skip

    def _rate(self) -> float:
        """Frames per second of late."""
        span = self._times[-1] - self._times[0] if self._times else 0.0
        return (len(self._times) - 1) / span if span > 0 else 0.0
