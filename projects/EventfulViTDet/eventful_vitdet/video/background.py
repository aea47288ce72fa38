"""Work in threads of its own: iterators, some items ahead of the consumer or the newest item only, and calls."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import TypeVar

POLL_SECONDS = 0.1

Result = TypeVar("Result")


class BackgroundIterator:
    """Runs an iterable in a thread, at most `size` items ahead, and hands its items, or its exception, to the
    consumer.

    A context manager: leaving it ends the thread, also in the middle of the iteration.
    """

    _END = object()

    def __init__(
        self,
        make_iterable: Callable[[], Iterable],
        size: int,
        patience: float | None = None,
        left: threading.Event | None = None,
    ) -> None:
        """
        Args:
            patience: seconds that leaving waits for the thread; after that it is left to itself. None: for ever.
            left: set when the consumer leaves.
        """
        self._make_iterable = make_iterable
        self._patience = patience
        self._queue: queue.Queue = queue.Queue(maxsize=size)
        self._stop = left or threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="frame-reader", daemon=True)

    def __enter__(self) -> Iterator:
        self._thread.start()
        return self._consume()

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join(self._patience)

    def _run(self) -> None:
        try:
            for item in self._make_iterable():
                if not self._put(item):
                    return
        except Exception as error:  # whatever it is, it belongs to the consumer, who raises it
            self._error = error
        self._put(self._END)

    def _put(self, item: object) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False

    def _consume(self) -> Iterator:
        while True:
            item = self._queue.get()
            if item is self._END:
                break
            yield item
        if self._error is not None:
            raise self._error


class NewestItem:
    """Runs an iterable in a thread and hands its newest item to the consumer; those in between are lost.

    A context manager: leaving it ends the thread at its next item.
    """

    def __init__(
        self, make_iterator: Callable[[], Iterator], patience: float, left: threading.Event | None = None
    ) -> None:
        """
        Args:
            patience: seconds that leaving waits for the thread; after that it is left to itself.
            left: set when the consumer leaves.
        """
        self._make_iterator = make_iterator
        self._patience = patience
        self._changed = threading.Condition()
        self._items: list = []  # the newest item, or nothing
        self._ended = False
        self._stop = left or threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="stream-reader", daemon=True)

    def __enter__(self) -> Iterator:
        self._thread.start()
        return self._consume()

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join(timeout=self._patience)

    def _run(self) -> None:
        try:
            with closing(self._make_iterator()) as iterator:
                for item in iterator:
                    with self._changed:
                        self._items = [item]
                        self._changed.notify()
                    if self._stop.is_set():
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


def call_aside(function: Callable[[], Result]) -> Result:
    """Call a function that may wait in a library, so that Ctrl-C need not wait for it."""
    return call_all_aside([function])[0]


def call_all_aside(functions: Sequence[Callable[[], Result]]) -> list[Result]:
    """Call several such functions at the same time. Raises the exception of the first in their order that failed."""
    with ExitStack() as stack:
        calls = [NewestItem(partial(_call_once, function), 0.0) for function in functions]
        results = [stack.enter_context(call) for call in calls]
        return [next(result) for result in results]


def _call_once(function: Callable[[], Result]) -> Iterator[Result]:
    yield function()
