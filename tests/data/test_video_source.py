from __future__ import annotations

import os
import threading
import time
from contextlib import closing

import cv2
import numpy as np
import pytest
from eventful_vitdet.data import video_source as module
from eventful_vitdet.data.video_source import NewestItem, StreamSource, hide_password, open_source
from eventful_vitdet.errors import VideoReadError

from .conftest import frame_number, grey_frame, write_video


def numbers(source, start: int = 0) -> list[tuple[int, int, int]]:
    """(index, sequence, number in the picture) of all frames."""
    with closing(source.frames(start)) as frames:
        return [(frame.index, frame.sequence, frame_number(frame.image)) for frame in frames]


# Files.


def test_a_video_file_and_seeking(tmp_path):
    path = write_video(tmp_path / "v.avi", [grey_frame(i) for i in range(6)])
    source = open_source(str(path))
    assert (source.num_frames, source.fps, source.live, source.name) == (6, 30, False, str(path))
    assert numbers(source) == [(i, 0, i) for i in range(6)]
    assert numbers(source, start=4) == [(4, 0, 4), (5, 0, 5)]  # again, from the middle
    assert numbers(source, start=9) == []


def test_several_videos_are_sequences_of_one_run(tmp_path):
    for name, first in (("2.avi", 0), ("10.avi", 3)):
        write_video(tmp_path / name, [grey_frame(first + i) for i in range(3)])
    for text in (str(tmp_path), str(tmp_path / "*.avi")):
        source = open_source(text)
        assert source.num_frames == 6 and source.name == "2 videos"
        assert numbers(source) == [(0, 0, 0), (1, 0, 1), (2, 0, 2), (3, 1, 3), (4, 1, 4), (5, 1, 5)]
        assert numbers(source, start=4) == [(4, 1, 4), (5, 1, 5)]


def test_images_in_natural_order(tmp_path):
    for i in (10, 9, 1):
        cv2.imwrite(str(tmp_path / f"frame{i}.png"), grey_frame(i))
    (tmp_path / "notes.txt").write_text("not a picture")
    source = open_source(str(tmp_path))
    assert source.num_frames == 3 and numbers(source) == [(0, 0, 1), (1, 0, 9), (2, 0, 10)]
    assert numbers(open_source(str(tmp_path / "frame?.png"))) == [(0, 0, 1), (1, 0, 9)]
    assert numbers(open_source(str(tmp_path / "frame9.png")), start=0) == [(0, 0, 9)]


def test_a_name_with_brackets_is_a_file_first(tmp_path):
    path = write_video(tmp_path / "v[1].avi", [grey_frame(0)])
    assert open_source(str(path)).num_frames == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.mp4", None, "there is no such file or folder .streams begin with rtsp://"),
        ("*.mp4", None, "no such file|no image and no video among 0 files"),
        ("text.mp4", b"this is no video at all", "cannot be opened as a video"),
        ("empty.mp4", b"", "the file is empty"),
        ("picture.png", b"\x89PNG\r\n\x1a\nnothing", "cannot be read as an image"),
    ],
)
def test_what_is_no_video_is_said_by_name(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoReadError, match=message) as raised:
        numbers(open_source(str(path)))
    assert str(path) in str(raised.value)


def test_folders_without_pictures_or_with_both_kinds(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(VideoReadError, match="no image and no video among 1 files"):
        open_source(str(tmp_path))
    cv2.imwrite(str(tmp_path / "a.png"), grey_frame(0))
    write_video(tmp_path / "a.avi", [grey_frame(0)])
    with pytest.raises(VideoReadError, match=r"both images and videos; name one kind, such as '\*.png'"):
        open_source(str(tmp_path))


def test_a_broken_video_among_others_is_found_before_work_begins(tmp_path):
    write_video(tmp_path / "a.avi", [grey_frame(0)])
    (tmp_path / "b.avi").write_bytes(b"nothing")
    with pytest.raises(VideoReadError, match=r"b\.avi"):
        open_source(str(tmp_path))


def test_frames_of_changing_size(tmp_path):
    cv2.imwrite(str(tmp_path / "1.png"), grey_frame(1))
    cv2.imwrite(str(tmp_path / "2.png"), grey_frame(2, 32, 80))
    with closing(open_source(str(tmp_path)).frames()) as frames:
        assert [frame.image.shape for frame in frames] == [(48, 64, 3), (80, 32, 3)]


# Cameras and streams.


@pytest.mark.skipif(os.path.exists("/dev/video37"), reason="this machine has 38 cameras")
def test_a_camera_that_is_not_there(capfd):
    with pytest.raises(VideoReadError, match="camera 37: cannot be opened; is it there, switched on"):
        open_source("37")
    assert capfd.readouterr().err == ""


def test_an_address_of_nothing_and_an_unknown_one(capfd):
    with pytest.raises(VideoReadError, match=r"rtsp://127.0.0.1:9/x: cannot be opened") as raised:
        open_source("rtsp://user:secret@127.0.0.1:9/x")
    assert "secret" not in str(raised.value)
    assert capfd.readouterr().err == ""
    with pytest.raises(VideoReadError, match="gopher://x: addresses begin with one of rtsp://"):
        open_source("gopher://x")


def test_a_name_that_is_not_utf8(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff\xfe.mp4")
    path.write_bytes(b"anything")
    with pytest.raises(VideoReadError, match="the name is not UTF-8"):
        open_source(str(path))


def test_a_number_that_no_camera_has():
    with pytest.raises(VideoReadError, match="99999999999: there is no such file or folder"):
        open_source("99999999999")


def test_passwords_are_left_out():
    assert hide_password("rtsp://me:pw@cam/1") == "rtsp://cam/1"
    assert hide_password("http://cam/a@b") == "http://cam/a@b"


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


def test_the_newest_item_is_what_a_slow_consumer_gets():
    produced = threading.Semaphore(0)
    asked = threading.Event()

    def items():
        yield 0
        asked.wait(5)
        yield from range(1, 100)
        produced.release()
        time.sleep(0.01)

    with NewestItem(items) as newest:
        assert next(newest) == 0
        asked.set()
        assert produced.acquire(timeout=5)
        assert next(newest) == 99
        with pytest.raises(StopIteration):
            next(newest)


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


def test_errors_of_the_reading_thread_reach_the_consumer():
    def items():
        yield 1
        raise VideoReadError("cam: gone")

    with NewestItem(items) as newest, pytest.raises(VideoReadError, match="cam: gone"):
        list(newest)


def test_leaving_a_stream_early_ends_its_thread(open_stream):
    before = threading.active_count()
    stream, source, _, _ = open_stream(list(range(20)) * 100)
    with closing(source.frames()) as frames:
        first = next(frames)
        assert isinstance(first.image, np.ndarray)
    assert threading.active_count() == before and stream.released == 1
