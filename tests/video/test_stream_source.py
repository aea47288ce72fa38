from __future__ import annotations

import functools
import http.server
import itertools
import threading
import time
from contextlib import closing
from fractions import Fraction

import cv2
import numpy as np
import pytest
from eventful_vitdet.errors import VideoReadError
from eventful_vitdet.video import StreamSource, open_source
from eventful_vitdet.video import stream_source as module

from .conftest import frame_number, grey_frame
from .encoded_videos import encode, number_in


def numbers(source, start: int = 0) -> list[tuple[int, int, int]]:
    """(index, sequence, number in the picture) of all frames."""
    with closing(source.frames(start)) as frames:
        return [(frame.index, frame.sequence, frame_number(frame.image)) for frame in frames]


class Stream:
    """Pretends to be a stream: each connection gives frame numbers, or is None where it cannot be opened.

    Of a file at an address, `length` is the number of frames; each is shown for a tenth of a second.
    """

    def __init__(self, *connections, length: int | None = None) -> None:
        self.connections = list(connections)
        self.length = length
        self.now = 0.0
        self.released = 0
        self.seekable = True

    def connect(self):
        frames = self.connections.pop(0) if self.connections else None
        return None if frames is None else Connection(self, frames)


class Connection:
    fps = 0.0

    def __init__(self, stream: Stream, frames) -> None:
        self.stream, self.left, self.taken = stream, iter(frames), None
        self.live, self.num_frames, self.is_over = stream.length is None, stream.length, False
        self.pixel_aspect = Fraction(1)

    def grab(self) -> bool:
        self.stream.now += 0.1
        number = next(self.left, None)
        if number is None:
            self.is_over = not self.live and self.taken == self.stream.length - 1
            return False
        self.taken = number
        self.seconds = self.taken / 10
        return True

    def image(self) -> np.ndarray:
        return grey_frame(self.taken)

    def go_to(self, seconds: float) -> None:
        if self.stream.seekable:  # to the key frame before
            self.left = (number for number in list(self.left) if number / 10 >= seconds - 0.15)

    def close(self) -> None:
        self.stream.released += 1


@pytest.fixture
def open_stream():
    def make(*connections, patience: float = 20.0, length: int | None = None):
        stream = Stream(*connections, length=length)
        waits, notices = [], []

        def wait(left: threading.Event, seconds: float) -> None:
            waits.append(seconds)
            stream.now += seconds

        source = StreamSource("cam", stream.connect, patience=patience, clock=lambda: stream.now, wait=wait)
        source.on_notice = notices.append
        return stream, source, waits, notices

    return make


def test_a_camera_that_is_off_at_the_start_is_waited_for():
    stream, notices, waits = Stream(None, None, [0, 1], None), [], []

    def wait(left: threading.Event, seconds: float) -> None:
        waits.append(seconds)
        stream.now += 1000  # longer than a lost stream is waited for

    options = {"patience": 20.0, "clock": lambda: stream.now, "wait": wait}
    with pytest.raises(VideoReadError, match="cam: cannot be opened; is it there"):
        StreamSource("cam", Stream(None).connect, **options)
    source = StreamSource("cam", stream.connect, may_be_away=True, **options)
    assert source.is_away and source.live
    source.on_notice = notices.append
    with closing(source.frames()) as frames:
        assert frame_number(next(frames).image) in (0, 1) and not source.is_away
        assert notices[0] == "cam: no signal, trying again in 0.5 s" and waits[0] == 0.5
        with pytest.raises(VideoReadError, match="did not come back within 20 s"):  # from now on as any stream
            list(frames)


def test_a_file_at_an_address_that_nobody_answers_at_first_is_read_whole():
    stream = Stream(None, None, None, [0, 1, 2], length=3)
    source = StreamSource("cam", stream.connect, may_be_away=True, wait=lambda left, seconds: None)
    source.on_notice = lambda notice: None
    assert numbers(source) == [(0, 0, 0), (1, 0, 1), (2, 0, 2)]
    assert not source.live and source.num_frames == 3


def test_waiting_for_a_source_that_never_comes_ends_when_it_is_left():
    tries = []
    source = StreamSource("cam", lambda: tries.append(1), may_be_away=True)
    waiting = threading.Event()
    source.on_notice = lambda notice: waiting.set()
    seen = []
    thread = threading.Thread(target=lambda: seen.append(list(source.frames())))
    thread.start()
    assert waiting.wait(60)
    source.leave()
    thread.join(60)
    assert seen == [[]] and len(tries) >= 2


def all_frames(source, start: int = 0):
    """Every frame that arrives, in this thread."""
    return module._Playback(source, source._take_first(), threading.Event()).frames(start)


def test_a_stream_that_drops_and_comes_back(open_stream):
    stream, source, waits, notices = open_stream([0, 1], None, None, None, [5, 6], patience=20)
    assert source.live and source.fps == 30 and source.num_frames is None
    seen = []
    with pytest.raises(VideoReadError, match="cam: was lost and did not come back within 20 s"):
        for frame in all_frames(source):
            seen.append((frame.index, frame.sequence, frame_number(frame.image), frame.notice))
    back = "stream was lost for 8 s, started again"
    assert seen == [(0, 0, 0, ""), (1, 0, 1, ""), (2, 1, 5, back), (3, 1, 6, back)]
    assert waits[:4] == [0.5, 1, 2, 4]  # longer each time
    assert notices[0] == "cam: lost; trying again in 0.5 s" and "cam: back after 7.6 s" in notices
    assert stream.released == 2


@pytest.mark.parametrize("seekable", [True, False])
def test_a_video_at_an_address_ends_and_goes_on_where_it_was_lost(open_stream, seekable):
    stream, source, waits, _ = open_stream([0, 1, 2], None, [0, 1, 2, 3, 4], length=5)
    stream.seekable = seekable
    assert source.num_frames == 5 and not source.live
    seen = [(f.index, f.sequence, frame_number(f.image), f.seconds) for f in source.frames()]
    assert seen == [(0, 0, 0, 0.0), (1, 0, 1, 0.1), (2, 0, 2, 0.2), (3, 1, 3, 0.3), (4, 1, 4, 0.4)]
    assert waits == [0.5, 1.0]


def test_from_the_middle_and_every_nth(open_stream):
    _, source, _, _ = open_stream(range(9), range(9), length=9)
    assert [(f.index, frame_number(f.image), f.step) for f in source.frames(2, 3)] == [(2, 2, 3), (5, 5, 3), (8, 8, 3)]
    assert numbers(source, 7) == [(7, 0, 7), (8, 0, 8)]  # another pass, with a connection of its own


def test_a_video_that_is_shorter_than_it_says_ends(open_stream):
    _, source, _, notices = open_stream(*[[0, 1, 2]] * 9, length=10)
    assert [frame.index for frame in source.frames()] == [0, 1, 2]
    assert notices[-1] == "cam: ends after 3 of 10 frames"


def test_a_stream_that_answers_but_sends_nothing_is_not_back(open_stream):
    _, source, waits, notices = open_stream([0], *[[]] * 50, patience=20)
    with pytest.raises(VideoReadError, match="did not come back within 20 s"):
        list(all_frames(source))
    assert waits == [0.5, 1, 2, 4, 8, 15] and not any("back after" in notice for notice in notices)


def test_a_notice_goes_after_some_seconds(open_stream):
    _, source, _, _ = open_stream([0], list(range(20)) * 3)
    notices = []
    for frame in all_frames(source):
        notices.append(bool(frame.notice))
        if frame.index == 60:
            break
    assert notices[0] is False and notices[1:28] == [True] * 27 and not any(notices[32:])


def test_waits_have_a_limit(open_stream):
    _, source, waits, _ = open_stream([0], patience=100)
    with pytest.raises(VideoReadError, match="within 100 s"):
        list(all_frames(source))
    assert max(waits) == module.LONGEST_WAIT_SECONDS


def test_frames_that_were_passed_over_leave_no_gap(open_stream):
    stream, source, _, _ = open_stream(itertools.cycle(range(20)))
    seen = []
    with closing(source.frames(start=7)) as frames:
        for frame in frames:
            seen.append(frame)
            if len(seen) == 4:
                break
            until, deadline = stream.now + 1, time.monotonic() + 60
            while stream.now < until and time.monotonic() < deadline:  # ten frames of this stream
                time.sleep(0.001)
    assert [frame.index for frame in seen] == [7, 8, 9, 10] and {frame.sequence for frame in seen} == {0}
    assert all(later.seconds > frame.seconds + 0.5 for frame, later in zip(seen, seen[1:]))  # the newest, by the clock


@pytest.mark.parametrize("length", [None, 2000])
def test_leaving_a_stream_early_ends_its_thread(open_stream, length):
    stream, source, _, _ = open_stream(itertools.cycle(range(20)) if length is None else range(length), length=length)
    before = threading.active_count()
    with closing(source.frames()) as frames:
        first = next(frames)
        assert isinstance(first.image, np.ndarray)
        assert first.index == 0 and threading.active_count() == before + 1
    assert threading.active_count() == before and stream.released == 1


@pytest.mark.parametrize("length", [None, 5])
def test_leaving_during_an_outage_waits_for_nothing(length):
    """As at Ctrl-C: neither for the next attempt, nor for one that is under way."""
    stream = Stream([0, 1], length=length)
    waiting, block = threading.Event(), threading.Event()

    def connect():
        if stream.connections:
            return stream.connect()
        waiting.set()
        block.wait(30)  # in a library
        return None

    source = StreamSource("cam", connect, wait=lambda left, seconds: left.wait(0.0))
    source.on_notice = lambda notice: None
    frames = source.frames()
    next(frames)
    assert waiting.wait(10)
    began = time.monotonic()
    frames.close()
    assert time.monotonic() - began < 2
    block.set()


def test_a_stream_that_waits_for_its_next_attempt_is_left_at_once():
    stream, waiting = Stream([0, 1]), threading.Event()

    def wait(left: threading.Event, seconds: float) -> None:
        waiting.set()
        assert left.wait(30)  # is woken up

    source = StreamSource("cam", stream.connect, wait=wait)
    source.on_notice = lambda notice: None
    frames = source.frames()
    next(frames)
    assert waiting.wait(10)
    before = threading.active_count()
    frames.close()
    assert threading.active_count() == before - 1


# Files at an address.


@pytest.fixture
def served(tmp_path):
    """A folder, and the address at which it is served."""
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield tmp_path, f"http://user:secret@127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        pass


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
def test_a_still_at_an_address_is_one_frame(served, suffix):
    folder, address = served
    cv2.imwrite(str(folder / f"still.{suffix}"), grey_frame(9))
    source = open_source(f"{address}/still.{suffix}?token=secret")
    assert not source.live and "secret" not in source.name
    frames = list(source.frames())
    assert [(frame.index, frame_number(frame.image)) for frame in frames] == [(0, 9)]
    assert "secret" not in frames[0].name


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("v.mp4", "libx264", {"container_options": {"movflags": "faststart"}}),
        ("v.mp4", "libx264", {}),
        ("v.mkv", "libx264", {}),
        ("v.ts", "libx264", {}),
        ("v.webm", "libvpx", {}),
        ("v.gif", "gif", {"pixels": "rgb8"}),
    ],
)
def test_a_video_at_an_address_is_read_whole(served, name, codec, options):
    folder, address = served
    encode(folder / name, codec, count=20, **options)
    source = open_source(f"{address}/{name}")
    assert not source.live and source.num_frames in (20, None)
    frames = list(source.frames())
    assert [number_in(frame.image) for frame in frames] == list(range(20)) == [frame.index for frame in frames]
    times = [frame.seconds - frames[0].seconds for frame in frames]
    assert times == pytest.approx([i / 30 for i in range(20)], abs=0.011)
    assert [number_in(frame.image) for frame in source.frames(5, 7)] == [5, 12, 19]


def test_recordings_at_an_address_that_were_put_behind_each_other(served):
    folder, address = served
    part = encode(folder / "part.ts", count=30).read_bytes()
    (folder / "v.ts").write_bytes(part + part)
    times = [frame.seconds for frame in open_source(f"{address}/v.ts").frames()]
    assert [time - times[0] for time in times] == pytest.approx([i / 30 for i in range(60)], abs=0.001)


def test_pixels_at_an_address_that_are_not_square(served):
    folder, address = served

    def stretch(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(16, 11)

    encode(folder / "v.ts", prepare=stretch)
    assert open_source(f"{address}/v.ts").pixel_aspect == Fraction(16, 11)


def test_an_address_without_a_video(served):
    folder, address = served
    (folder / "page.html").write_text("<html>no video</html>" * 50)
    for name in ("page.html", "absent.mp4"):
        with pytest.raises(VideoReadError, match=f"/{name}: cannot be opened") as raised:
            open_source(f"{address}/{name}")
        assert "secret" not in str(raised.value)
