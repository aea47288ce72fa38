from __future__ import annotations

import errno
import os
from contextlib import closing

import cv2
import pytest
from eventful_vitdet.errors import VideoReadError
from eventful_vitdet.video import FileSource, ImageSource, open_source, open_sources, opening
from eventful_vitdet.video.connections import hide_secrets

from .conftest import frame_number, grey_frame, write_video
from .tiled_picture import write_tiled_picture


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


def test_numbers_in_names_have_any_length():
    names = ["", "0", "00", "01", "1", "2", "9" * 5000, "1" + "0" * 5000, "a", "a0b", "a01", "a1", "a1b", "b"]
    assert sorted(reversed(names), key=opening.natural_key) == names


def test_a_name_with_brackets_is_a_file_first(tmp_path):
    path = write_video(tmp_path / "v[1].avi", [grey_frame(0)])
    assert open_source(str(path)).num_frames == 1


def test_each_video_as_a_source_of_its_own(tmp_path):
    for name in ("a/2.avi", "a/10.avi", "b.avi"):
        write_video(tmp_path / name, [grey_frame(1)])
    (tmp_path / "images").mkdir()
    for i in range(3):
        cv2.imwrite(str(tmp_path / "images" / f"{i}.png"), grey_frame(i))
    sources = open_sources([str(tmp_path / "a"), str(tmp_path / "b.avi"), str(tmp_path / "images" / "*.png")])
    names = [os.path.basename(source.name) for source in sources]
    assert names == ["2.avi", "10.avi", "b.avi", "*.png"] and sources[3].num_frames == 3
    with pytest.raises(VideoReadError, match="gone: there is no such file"):
        open_sources([str(tmp_path / "b.avi"), str(tmp_path / "gone")])


def test_every_nth_frame_with_its_number_and_time(tmp_path):
    for name in ("1.avi", "2.avi"):
        write_video(tmp_path / name, [grey_frame(i) for i in range(5)])
    source = open_source(str(tmp_path))
    frames = list(source.frames(1, 3))
    assert [(f.index, f.sequence, f.step, frame_number(f.image)) for f in frames] == [
        *((1, 0, 3, 1), (4, 0, 3, 4), (7, 1, 3, 2)),
    ]
    assert [frame.seconds for frame in frames] == pytest.approx([1 / 30, 4 / 30, 2 / 30])


def test_contents_decide_and_not_names(tmp_path):
    video = write_video(tmp_path / "v.avi", [grey_frame(i) for i in range(3)])
    video.rename(tmp_path / "a_video.jpg")
    cv2.imwrite(str(tmp_path / "b.png"), grey_frame(4))
    (tmp_path / "b.png").rename(tmp_path / "an_image.mp4")
    cv2.imwrite(str(tmp_path / "c.png"), grey_frame(5))
    (tmp_path / "c.png").rename(tmp_path / "no_suffix")
    assert numbers(open_source(str(tmp_path / "a_video.jpg"))) == [(i, 0, i) for i in range(3)]
    assert numbers(open_source(str(tmp_path / "an_image.mp4"))) == [(0, 0, 4)]
    assert numbers(open_source(str(tmp_path / "no_suffix"))) == [(0, 0, 5)]


def test_pictures_in_one_file_behind_each_other(tmp_path):
    for name in ("a.mjpeg", "b.mjpg"):
        pictures = (cv2.imencode(".jpg", grey_frame(i))[1].tobytes() for i in range(3))
        (tmp_path / name).write_bytes(b"".join(pictures))
    assert numbers(open_source(str(tmp_path / "a.mjpeg"))) == [(i, 0, i) for i in range(3)]
    assert numbers(open_source(str(tmp_path))) == [(i, i // 3, i % 3) for i in range(6)]


@pytest.mark.parametrize("pattern", ["", "*"])
def test_hidden_files_are_passed_over(tmp_path, pattern):
    for name in (".DS_Store", "._0.jpg", "._0.png", "Thumbs.db", "notes.txt", "data.json"):
        (tmp_path / name).write_bytes(b"\x00\x05\x16\x07" + b"Mac OS X" * 10)
    cv2.imwrite(str(tmp_path / "0.png"), grey_frame(0))
    source = open_source(str(tmp_path / pattern))
    assert isinstance(source, ImageSource) and numbers(source) == [(0, 0, 0)]
    (tmp_path / "0.png").unlink()
    write_video(tmp_path / "v.avi", [grey_frame(1)])
    (tmp_path / "._v.avi").write_bytes(b"\x00\x05\x16\x07")
    source = open_source(str(tmp_path / pattern))
    assert isinstance(source, FileSource) and numbers(source) == [(0, 0, 1)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.mp4", None, "there is no such file or folder .streams begin with rtsp://"),
        ("*.mp4", None, "no such file|no image and no video among 0 files"),
        ("text.mp4", b"this is no video at all", "cannot be opened as a video"),
        ("notes.txt", b"words and words\n" * 50, "cannot be opened as a video"),
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


def test_a_tile_is_not_taken_for_the_picture(tmp_path):
    path = write_tiled_picture(tmp_path / "phone.heic")
    with pytest.raises(VideoReadError, match=r"phone\.heic: is a picture of several tiles"):
        open_source(str(path))


def test_what_is_neither_file_nor_folder(tmp_path):
    """Opening a pipe would wait for somebody who writes to it."""
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoReadError, match="pipe.mp4: is neither a file nor a folder"):
        open_source(str(tmp_path / "pipe.mp4"))


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)

    monkeypatch.setattr(opening.os, "listdir", refuse)
    with pytest.raises(VideoReadError, match="the folder cannot be read .Permission denied"):
        open_source(str(tmp_path))


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
    path = tmp_path / os.fsdecode(b"\xff\xfe.avi")
    write_video(tmp_path / "v.avi", [grey_frame(3)]).rename(path)
    source = open_source(str(path))
    assert numbers(source) == [(0, 0, 3)] and source.name.encode() and source.name.endswith("\ufffd\ufffd.avi")


def test_a_number_that_no_camera_has():
    with pytest.raises(VideoReadError, match="99999999999: there is no such file or folder"):
        open_source("99999999999")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://me:pw@cam/1", "rtsp://cam/1"),
        ("rtsp://me:p@w@cam:554/1", "rtsp://cam:554/1"),
        ("rtsp://me:p/w?x#y@cam/1", "rtsp://cam/1"),
        ("http://cam/video.mp4?token=secret&x=1", "http://cam/video.mp4"),
        ("http://cam/video.mp4?mail=a@b", "http://b"),  # rather too little than too much
        ("https://me:pw@cam/live#secret", "https://cam/live"),
        ("rtsp:/me:pw@cam/1", "rtsp:/cam/1"),
        ("http://cam/a.jpg", "http://cam/a.jpg"),
        ("clip@2x?.mp4", "clip@2x?.mp4"),
        ("", ""),
    ],
)
def test_secrets_are_left_out(address, shown):
    assert hide_secrets(address) == shown


@pytest.mark.parametrize("scheme", ["rtsp", "http", "gopher", "rtsp:/x:secret@y ", "file+x"])
def test_no_error_shows_a_secret(scheme, capfd):
    with pytest.raises(VideoReadError) as raised:
        open_source(f"{scheme}://user:se@cret@127.0.0.1:9/x?key=secret")
    error, messages = raised.value, []
    while error is not None:
        messages.append(str(error))
        error = error.__cause__ or error.__context__
    assert not any("secret" in message or "se@cret" in message for message in messages), messages
    assert capfd.readouterr().err == ""
