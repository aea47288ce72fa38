"""One writer, many readers: each reader gets the newest item when it is ready, and holds up nobody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Broadcast(Generic[Item]):
    """The newest item of a thread, for viewers in an event loop.

    `publish` replaces the item and never waits. A viewer that is slow misses items; nothing queues up for it.
    """

    def __init__(self, on_viewers: Callable[[int], None] = lambda count: None) -> None:
        """
        Args:
            on_viewers: called, in the event loop, with the number of viewers whenever it changes.
        """
        self._on_viewers = on_viewers
        self._lock = threading.Lock()
        self._viewers: set[Viewer] = set()
        self._ended = False
        self.newest: Item | None = None

    def publish(self, item: Item) -> None:
        """Make this the newest item; may be called by any thread."""
        with self._lock:
            self.newest = item
            viewers = list(self._viewers)
        for viewer in viewers:
            viewer.wake()

    def end(self) -> None:
        """Let all viewers know that nothing will come any more; may be called by any thread."""
        with self._lock:
            self._ended = True
            viewers = list(self._viewers)
        for viewer in viewers:
            viewer.wake(ended=True)

    def join(self) -> Viewer[Item]:
        """A new viewer; to be called in its event loop, and followed by `leave`."""
        viewer = Viewer(self)
        with self._lock:
            self._viewers.add(viewer)
            count, ended = len(self._viewers), self._ended
        if ended:
            viewer.wake(ended=True)
        self._on_viewers(count)
        return viewer

    def leave(self, viewer: Viewer[Item]) -> None:
        """Forget a viewer."""
        with self._lock:
            self._viewers.discard(viewer)
            count = len(self._viewers)
        self._on_viewers(count)

    @property
    def viewers(self) -> int:
        """How many there are."""
        return len(self._viewers)


class Viewer(Generic[Item]):
    """One reader of a broadcast."""

    def __init__(self, broadcast: Broadcast[Item]) -> None:
        self._broadcast = broadcast
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._changed.set()  # what is there already is new to this viewer
        self._ended = asyncio.Event()
        self._last: Item | None = None

    def wake(self, *, ended: bool = False) -> None:
        """Tell the viewer, from any thread, that there is a new item, or that there will be none."""
        try:
            self._loop.call_soon_threadsafe((self._ended if ended else self._changed).set)
        except RuntimeError:
            pass  # its event loop has ended, and the viewer with it

    def look_again(self) -> None:
        """Let the newest item be new to this viewer once more."""
        self._last = None
        self._changed.set()

    async def wait_for_end(self) -> None:
        """Return when nothing will come any more."""
        await self._ended.wait()

    async def next(self) -> Item:
        """The newest item, once there is one that this viewer has not got yet."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            item = self._broadcast.newest
            if item is not None and item is not self._last:
                self._last = item
                return item
