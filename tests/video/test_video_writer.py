from __future__ import annotations

import errno
import logging
import os

import av
import cv2
import numpy as np
import pytest
from eventful_vitdet.errors import VideoWriteError
from eventful_vitdet.video import VideoWriter, probe_video, reserved_file
from eventful_vitdet.video import video_writer as module
from eventful_vitdet.video.containers import count_missing_bytes
from eventful_vitdet.video.json_lines import JsonLinesWriter

SIZE = (48, 64, 3)


def noise(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, SIZE, dtype=np.uint8)


def decode(path) -> list[np.ndarray]:
    capture, images = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        images.append(read[1])
    return images


def test_a_written_video_is_h264_with_all_frames(tmp_path):
    path = tmp_path / "v.mp4"
    with VideoWriter(str(path), 25) as video:
        for level in range(0, 250, 10):
            video.write(np.full(SIZE, level, np.uint8))
    with av.open(str(path)) as container:
        (stream,) = container.streams
        assert (stream.codec_context.name, stream.pix_fmt, stream.frames) == ("h264", "yuv420p", 25)
        assert float(stream.duration * stream.time_base) == pytest.approx(1.0) and stream.start_time == 0
    levels = [image.mean() for image in decode(path)]
    assert np.abs(np.array(levels) - np.arange(0, 250, 10)).max() < 4


def test_frames_with_their_own_times(tmp_path):
    path = tmp_path / "v.mp4"
    with VideoWriter(str(path), None) as video:
        for seconds in (0.0, 0.5, 0.5, 2.0):  # a camera's clock may stand still
            video.write(noise(0), seconds)
    with av.open(str(path)) as container:
        times = [round(float(frame.time), 3) for frame in container.decode(video=0)]
    assert times == [0.0, 0.5, 0.501, 2.0]


def test_a_key_frame_a_second_however_slowly_frames_come(tmp_path):
    for name, fps, expected in (("camera.mp4", None, [0, 3, 5, 6, 7]), ("file.mp4", 2, [0, 2, 4, 6])):
        with VideoWriter(str(tmp_path / name), fps) as video:
            for i in range(8):
                video.write(np.full(SIZE, 100, np.uint8), 0.4 * i if i < 5 else i)
        with av.open(str(tmp_path / name)) as container:
            keys = [index for index, frame in enumerate(container.decode(video=0)) if frame.key_frame]
        assert keys == expected, name


def test_videos_slower_than_a_frame_a_second(tmp_path):
    with VideoWriter(str(tmp_path / "v.mp4"), 0.25) as video:
        for i in range(3):
            video.write(noise(i))
    with av.open(str(tmp_path / "v.mp4")) as container:
        assert [float(frame.time) for frame in container.decode(video=0)] == [0, 4, 8]


@pytest.mark.parametrize("error", [KeyboardInterrupt, VideoWriteError])
def test_what_was_written_is_kept_where_that_is_wanted(tmp_path, error, caplog):
    path = tmp_path / "v.mp4"
    path.write_text("old")
    with pytest.raises(error), VideoWriter(str(path), 25, keep_partial=True) as video:
        for i in range(40):
            video.write(noise(i))
        raise error("stop")
    assert probe_video(str(path)).num_frames == 40 == len(decode(path))
    assert os.listdir(tmp_path) == ["v.mp4"] and "ends early" in caplog.text


def test_nothing_is_kept_of_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), VideoWriter(str(tmp_path / "v.mp4"), 25, keep_partial=True):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


class SmallDisk:
    """Stands in for `open`: files that share so many bytes."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity

    def open(self, path: str, mode: str, buffering: int = -1) -> SmallFile:
        return SmallFile(self, path)

    def room(self, folder: str) -> int:
        return self.capacity - sum(entry.stat().st_size for entry in os.scandir(folder))


class SmallFile:
    def __init__(self, disk: SmallDisk, path: str) -> None:
        self.disk, self.folder = disk, os.path.dirname(path)
        self.file = open(path, "wb", buffering=0)

    def write(self, data) -> int:
        behind = self.file.tell() + len(data) - os.fstat(self.file.fileno()).st_size
        if behind > 0:
            data = data[: len(data) - behind + min(behind, self.disk.room(self.folder))]
        if not data:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data)

    def __getattr__(self, name: str):
        return getattr(self.file, name)

    def __enter__(self) -> SmallFile:
        return self

    def __exit__(self, *exc_info) -> None:
        self.file.close()
        # As with a real file, a write may have stopped half-way.


@pytest.fixture
def small_disk(monkeypatch):
    def make(capacity: int) -> None:
        monkeypatch.setattr(reserved_file, "open", SmallDisk(capacity).open, raising=False)

    return make


@pytest.mark.parametrize("capacity", [700_000, 3_000_000])
def test_full_disk_leaves_a_valid_file(tmp_path, small_disk, capacity):
    small_disk(capacity)
    path = tmp_path / "v.mp4"
    with pytest.raises(VideoWriteError, match="the disk is full") as raised:
        with VideoWriter(str(path), 25, keep_partial=True) as video:
            for i in range(2000):
                video.write(noise(i))
    assert str(path) in str(raised.value) and os.listdir(tmp_path) == ["v.mp4"]
    assert count_missing_bytes(str(path)) == 0
    assert probe_video(str(path)).num_frames == len(decode(path)) == video.frames > 10


def test_full_disk_without_any_reserve_leaves_whole_fragments(tmp_path, small_disk, monkeypatch):
    monkeypatch.setattr(reserved_file, "RESERVES", ())
    small_disk(400_000)
    path = tmp_path / "v.mp4"
    with pytest.raises(VideoWriteError, match="the disk is full"):
        with VideoWriter(str(path), 25, keep_partial=True) as video:
            for i in range(2000):
                video.write(noise(i))
    assert count_missing_bytes(str(path)) == 0
    # A second of the last fragment is lost, and what the encoder still held.
    assert video.frames - 2 * 25 <= len(decode(path)) <= video.frames


def test_full_disk_and_nothing_to_keep(tmp_path, small_disk):
    small_disk(700_000)
    with pytest.raises(VideoWriteError, match="the disk is full"):
        with VideoWriter(str(tmp_path / "v.mp4"), 25) as video:
            for i in range(2000):
                video.write(noise(i))
    assert os.listdir(tmp_path) == []


def test_a_missing_encoder_is_said_once_and_replaced(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "ENCODERS", {"no-such-encoder": {}, "mpeg4": {}})
    module.say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for name in ("a.mp4", "b.mp4"):
            with VideoWriter(str(tmp_path / name), 25) as video:
                video.write(noise(0))
    assert caplog.text.count("cannot encode H.264: videos are MPEG-4") == 1
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams[0].codec_context.name == "mpeg4"


def test_names_that_are_no_video(tmp_path):
    with pytest.raises(VideoWriteError, match="out.avi: videos are written as .mp4"):
        VideoWriter(str(tmp_path / "out.avi"), 25)
    (tmp_path / "v.part.mp4").mkdir()
    with pytest.raises(VideoWriteError, match="v.mp4: cannot be written to"):
        VideoWriter(str(tmp_path / "v.mp4"), 25).__enter__()


def test_written_video_can_be_read(tmp_path):
    path = tmp_path / "folder" / "v.mp4"
    with VideoWriter(str(path), 25) as video:
        for level in range(0, 250, 25):
            video.write(np.full((33, 65, 3), level, np.uint8))  # odd sizes
    info = probe_video(str(path))
    assert (info.width, info.height, info.num_frames, info.fps) == (64, 32, 10, 25.0)
    assert [p.name for p in path.parent.iterdir()] == ["v.mp4"]


def test_failed_video_leaves_nothing_and_keeps_the_old_one(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), VideoWriter(str(path), 25) as video:
        video.write(np.zeros((32, 64, 3), np.uint8))
        raise KeyboardInterrupt
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_bad_videos(tmp_path):
    with (
        pytest.raises(VideoWriteError, match="no frame was written"),
        VideoWriter(str(tmp_path / "a.mp4"), 25),
    ):
        pass
    with pytest.raises(VideoWriteError, match="frame 1 is 32 x 64 pixels, the first was 64 x 32"):
        with VideoWriter(str(tmp_path / "b.mp4"), 25) as video:
            video.write(np.zeros((32, 64, 3), np.uint8))
            video.write(np.zeros((64, 32, 3), np.uint8))
    (tmp_path / "file").write_text("")
    with pytest.raises(VideoWriteError, match="cannot be written to"):
        VideoWriter(str(tmp_path / "file" / "c.mp4"), 25).__enter__()
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("make", [lambda path: VideoWriter(path, 25), JsonLinesWriter])
def test_a_file_that_somebody_else_is_writing(make, tmp_path):
    """It is refused and disturbs nobody; a file left by a process that was killed is no hindrance."""
    path = str(tmp_path / "out.mp4")
    record = noise(0) if make is not JsonLinesWriter else {"frame": 0}
    with make(path) as first:
        first.write(record)
        with pytest.raises(VideoWriteError, match="out.mp4: cannot be written to .another command is writing it"):
            with make(path):
                pass
    size = os.path.getsize(path)
    left = tmp_path / ("out.part.mp4" if make is not JsonLinesWriter else "out.mp4.part")
    assert size > 0 and not left.exists()
    left.write_bytes(bytes(10**6))
    with make(path) as second:
        second.write(record)
    assert os.path.getsize(path) == size and os.listdir(tmp_path) == ["out.mp4"]
