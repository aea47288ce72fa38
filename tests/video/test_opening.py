from __future__ import annotations

import os
from contextlib import closing

import cv2
import pytest
from eventful_vitdet.errors import VideoReadError
from eventful_vitdet.video import open_source
from eventful_vitdet.video.opening import hide_password

from .conftest import frame_number, grey_frame, write_video


def numbers(source, start: int = 0) -> list[tuple[int, int, int]]:
    """(index, sequence, number in the picture) of all frames."""
    with closing(source.frames(start)) as frames:
        return [(frame.index, frame.sequence, frame_number(frame.image)) for frame in frames]


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
