from __future__ import annotations

import threading
import time
from contextlib import closing

import cv2
import pytest
from eventful_vitdet.errors import VideoReadError
from eventful_vitdet.video import StreamSource
from eventful_vitdet.video import stream_source as module

from .conftest import frame_number, grey_frame


def numbers(source, start: int = 0) -> list[tuple[int, int, int]]:
    """(index, sequence, number in the picture) of all frames."""
    with closing(source.frames(start)) as frames:
        return [(frame.index, frame.sequence, frame_number(frame.image)) for frame in frames]


class Stream:
    """Pretends to be a stream: each connection is a list of frame numbers, or None where it cannot be opened."""

    def __init__(self, *connections) -> None:
        self.connections = list(connections)
        self.now = 0.0
        self.released = 0
        self.length = -9.2e18  # what live streams say
        self.seekable = True

    def connect(self):
        frames = self.connections.pop(0) if self.connections else None
        return Connection(self, frames)


class Connection:
    def __init__(self, stream: Stream, frames) -> None:
        self.stream, self.frames, self.position = stream, frames, 0

    def isOpened(self) -> bool:  # noqa: N802
        return self.frames is not None

    def get(self, key: int) -> float:
        if key == cv2.CAP_PROP_FRAME_COUNT:
            return self.stream.length
        if key == cv2.CAP_PROP_POS_FRAMES:
            return float(self.position)
        return 90000.0  # what streams without a frame rate say

    def set(self, key: int, value: float) -> None:
        assert key == cv2.CAP_PROP_POS_FRAMES
        if self.stream.seekable:
            self.position = int(value)
            self.frames = self.frames[self.position :]

    def grab(self) -> bool:
        return bool(self.frames and [self.frames.pop(0)])

    def read(self):
        self.stream.now += 0.1
        return (True, grey_frame(self.frames.pop(0))) if self.frames else (False, None)

    def release(self) -> None:
        self.stream.released += 1


@pytest.fixture
def open_stream(monkeypatch):
    def make(*connections, patience: float = 20.0, length: float = -9.2e18):
        stream = Stream(*connections)
        stream.length = length
        source = StreamSource("cam", stream.connect, patience=patience, clock=lambda: stream.now)
        waits, notices = [], []

        def wait(seconds):
            waits.append(seconds)
            stream.now += seconds

        monkeypatch.setattr(source._left, "wait", wait)
        source.on_notice = notices.append
        return stream, source, waits, notices

    return make


def test_a_stream_that_drops_and_comes_back(open_stream):
    stream, source, waits, notices = open_stream([0, 1], None, None, None, [5, 6], patience=20)
    assert source.live and source.fps == 30 and source.num_frames is None
    seen = []
    with pytest.raises(VideoReadError, match="cam: was lost and did not come back within 20 s"):
        for frame in source.all_frames():
            seen.append((frame.index, frame.sequence, frame_number(frame.image), frame.notice))
    back = "stream was lost for 8 s, started anew"
    assert seen == [(0, 0, 0, ""), (1, 0, 1, ""), (2, 1, 5, back), (3, 1, 6, back)]
    assert waits[:4] == [0.5, 1, 2, 4]  # longer each time
    assert notices[0] == "cam: lost; trying again in 0.5 s" and "cam: back after 7.6 s" in notices
    assert stream.released == 1 + 3 + 1 + len(waits) - 4


def test_a_video_at_an_address_ends_and_goes_on_where_it_was_lost(open_stream):
    _, source, waits, _ = open_stream([0, 1, 2], None, [0, 1, 2, 3, 4], length=5)
    assert source.num_frames == 5 and not source.live
    seen = [(frame.index, frame.sequence, frame_number(frame.image)) for frame in source.frames()]
    assert seen == [(0, 0, 0), (1, 0, 1), (2, 0, 2), (3, 1, 3), (4, 1, 4)] and waits == [0.5, 1.0]


def test_a_server_that_cannot_jump_is_read_from_the_beginning(open_stream):
    stream, source, _, _ = open_stream([0, 1, 2], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], length=5)
    stream.seekable = False
    assert [frame_number(frame.image) for frame in source.frames()] == [0, 1, 2, 3, 4]


def test_a_video_that_is_shorter_than_it_says_ends(open_stream):
    _, source, _, notices = open_stream(*[[0, 1, 2]] * 9, length=10)
    assert [frame.index for frame in source.frames()] == [0, 1, 2]
    assert notices[-1] == "cam: ends after 3 of 10 frames"


def test_a_stream_that_answers_but_sends_nothing_is_not_back(open_stream):
    _, source, waits, notices = open_stream([0], *[[]] * 50, patience=20)
    with pytest.raises(VideoReadError, match="did not come back within 20 s"):
        list(source.all_frames())
    assert waits == [0.5, 1, 2, 4, 8, 15] and not any("back after" in notice for notice in notices)


def test_a_notice_goes_after_some_seconds(open_stream):
    _, source, _, _ = open_stream([0], list(range(20)) * 3)
    notices = []
    for frame in source.all_frames():
        notices.append(bool(frame.notice))
        if frame.index == 60:
            break
    assert notices[0] is False and notices[1:28] == [True] * 27 and not any(notices[32:])


def test_waits_have_a_limit(open_stream):
    _, source, waits, _ = open_stream([0], patience=100)
    with pytest.raises(VideoReadError, match="within 100 s"):
        list(source.all_frames())
    assert max(waits) == module.LONGEST_WAIT_SECONDS


def test_frames_that_were_passed_over_leave_no_gap(open_stream):
    stream, source, _, _ = open_stream(list(range(20)) * 5000)
    seen = []
    with closing(source.frames(start=7)) as frames:
        for frame in frames:
            seen.append(frame)
            if len(seen) == 4:
                break
            until, deadline = stream.now + 1, time.monotonic() + 5
            while stream.now < until and time.monotonic() < deadline:  # ten frames of this stream
                time.sleep(0.001)
    assert [frame.index for frame in seen] == [7, 8, 9, 10] and {frame.sequence for frame in seen} == {0}
    assert all(later.seconds > frame.seconds + 0.5 for frame, later in zip(seen, seen[1:]))  # the newest, by the clock


def test_leaving_a_stream_early_ends_its_thread(open_stream):
    before = threading.active_count()
    stream, source, _, _ = open_stream(list(range(20)) * 100)
    with closing(source.frames()) as frames:
        assert next(frames).index == 0 and threading.active_count() == before + 1
    assert threading.active_count() == before and stream.released == 1
