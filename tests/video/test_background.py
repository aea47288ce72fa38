from __future__ import annotations

import threading

import pytest
from eventful_vitdet.errors import VideoReadError
from eventful_vitdet.video.background import BackgroundIterator, NewestItem


def test_error_in_the_consumer_ends_the_thread():
    def endless():
        while True:
            yield 1

    with pytest.raises(RuntimeError, match="mine"), BackgroundIterator(endless, 2) as items:
        next(items)
        raise RuntimeError("mine")
    assert not any(thread.name == "frame-reader" for thread in threading.enumerate())


def test_the_newest_item_is_what_a_slow_consumer_gets():
    asked, produced, taken = threading.Event(), threading.Event(), threading.Event()

    def items():
        yield 0
        asked.wait(5)
        yield from range(1, 100)
        produced.set()
        taken.wait(5)

    with NewestItem(items, 5) as newest:
        assert next(newest) == 0
        asked.set()
        assert produced.wait(5)
        assert next(newest) == 99
        taken.set()
        with pytest.raises(StopIteration):
            next(newest)


def test_errors_of_the_reading_thread_reach_the_consumer():
    def items():
        yield 1
        raise VideoReadError("cam: gone")

    with NewestItem(items, 5) as newest, pytest.raises(VideoReadError, match="cam: gone"):
        list(newest)
