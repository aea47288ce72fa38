from __future__ import annotations

import json
import pickle

import cv2
import numpy as np
import pytest
from eventful_vitdet.data.listed_frames import iterate_listed_frames, read_listed_frame
from eventful_vitdet.errors import VideoReadError
from eventful_vitdet.video import decoding, probe_video
from PIL import Image
from video.encoded_videos import encode, number_in

from .conftest import HEIGHT, WIDTH, frame_number, grey_frame, make_frame, write_video


@pytest.fixture
def video(tmp_path):
    return write_video(tmp_path / "v.avi", [grey_frame(i) for i in range(12)])


def test_exactly_the_wanted_frames_in_order(video):
    wanted = [0, 1, 4, 9, 11]
    read = list(iterate_listed_frames([make_frame(video, i) for i in wanted]))
    assert [frame["frame_id"] for frame, _ in read] == wanted
    assert [frame_number(image) for _, image in read] == wanted
    assert all(image.shape == (HEIGHT, WIDTH, 3) and image.dtype == np.uint8 for _, image in read)


def test_video_is_decoded_once(video, monkeypatch):
    read, opened, decoded = decoding.read_packets, [], []

    def count(container, *streams):
        opened.append(container)
        for packet in read(container, *streams):
            decoded.append(packet)
            yield packet

    list(iterate_listed_frames([make_frame(video, 0)]))  # which makes the index
    monkeypatch.setattr(decoding, "read_packets", count)
    list(iterate_listed_frames([make_frame(video, i) for i in (1, 3, 8)]))
    assert len(opened) == 1 and len(decoded) <= 12


def test_frames_far_apart_are_jumped_to(tmp_path, monkeypatch):
    path = encode(tmp_path / "v.mp4", count=200, gop=10)
    read, decoded = decoding.read_packets, []

    def count(container, *streams):
        for packet in read(container, *streams):
            decoded.append(packet)
            yield packet

    monkeypatch.setattr(decoding, "read_packets", count)
    frames = [make_frame(path, i) | {"width": 96, "height": 64} for i in (0, 3, 95, 99, 180)]
    assert [number_in(image) for _, image in iterate_listed_frames(frames)] == [0, 3, 95, 99, 180]
    assert len(decoded) < 90


@pytest.mark.parametrize("codec, suffix", [("MJPG", "avi"), ("mp4v", "mp4")])
def test_single_frames_from_the_middle(tmp_path, codec, suffix):
    path = write_video(tmp_path / f"v.{suffix}", [grey_frame(i) for i in range(24)], codec)
    assert [frame_number(read_listed_frame(make_frame(path, i))) for i in (17, 0, 23, 5)] == [17, 0, 23, 5]


def test_channel_order_is_bgr(tmp_path):
    blue = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    blue[..., 0] = 200
    cv2.imwrite(str(tmp_path / "a.png"), blue)
    path = write_video(tmp_path / "v.avi", [blue])
    image = read_listed_frame(make_frame(tmp_path / "a.png", 0, is_video_file=False))
    assert image[0, 0].tolist() == [200, 0, 0]
    decoded = read_listed_frame(make_frame(path, 0))
    assert decoded[..., 0].mean() > 150 and decoded[..., 2].mean() < 50


def test_probe(video):
    info = probe_video(str(video))
    assert (info.width, info.height, info.num_frames, info.fps) == (WIDTH, HEIGHT, 12, 30.0)


def test_frame_after_the_end(video):
    with pytest.raises(VideoReadError, match="v.avi: frame 12 cannot be read; .* after 12 frames"):
        list(iterate_listed_frames([make_frame(video, i) for i in (11, 12)]))
    with pytest.raises(VideoReadError, match="v.avi: frame 40 cannot be read"):
        read_listed_frame(make_frame(video, 40))


def test_truncated_mkv_says_how_much_is_there(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (12, HEIGHT, WIDTH, 3), np.uint8)
    path = write_video(tmp_path / "v.mkv", list(noise), "mp4v")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(VideoReadError, match=r"v\.mkv: the file is cut short: it ends after 0\.[12].. of 0\.4"):
        next(iterate_listed_frames([make_frame(path, i) for i in range(12)]))


@pytest.mark.parametrize("codec, suffix", [("MJPG", "avi"), ("mp4v", "mp4")])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_video(tmp_path, codec, suffix, share):
    # The decoder would make up what is missing of the last frame.
    path = write_video(tmp_path / f"v.{suffix}", [grey_frame(i) for i in range(12)], codec)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    for read in (lambda frame: next(iterate_listed_frames([frame])), read_listed_frame):
        with pytest.raises(VideoReadError, match=f"v.{suffix}: (the file is cut short|cannot be opened)"):
            read(make_frame(path, 0))


@pytest.mark.parametrize("content, message", [(b"", "the file is empty"), (b"no video" * 99, "cannot be opened")])
def test_file_that_is_no_video(tmp_path, content, message):
    path = tmp_path / "v.mp4"
    path.write_bytes(content)
    for read in (lambda: list(iterate_listed_frames([make_frame(path, 0)])), lambda: probe_video(str(path))):
        with pytest.raises(VideoReadError, match=f"{path}: {message}"):
            read()


def test_absent_files(tmp_path):
    for is_video_file in (True, False):
        with pytest.raises(VideoReadError, match="gone.x: the file does not exist"):
            list(iterate_listed_frames([make_frame(tmp_path / "gone.x", 0, is_video_file=is_video_file)]))


def test_size_other_than_listed(video):
    frame = {**make_frame(video, 3), "width": 99}
    with pytest.raises(VideoReadError, match="frame 3 is 64 x 48 pixels, but .* lists 99 x 48"):
        list(iterate_listed_frames([frame]))


def test_frames_of_changing_size(tmp_path):
    for i, width in enumerate((WIDTH, WIDTH, 32)):
        cv2.imwrite(str(tmp_path / f"{i}.png"), grey_frame(i, width))
    frames = [make_frame(tmp_path / f"{i}.png", i, is_video_file=False) for i in range(3)]
    with pytest.raises(VideoReadError, match="2.png: frame 2 is 32 x 48"):
        list(iterate_listed_frames(frames))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_truncated_image_file(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    cv2.imwrite(str(path), noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(VideoReadError, match=f"a.{suffix}: cannot be read as an image"):
        read_listed_frame(make_frame(path, 0, is_video_file=False))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_pixels_without_a_known_range_are_refused(tmp_path, dtype):
    path = tmp_path / "a.tiff"
    cv2.imwrite(str(path), np.full((HEIGHT, WIDTH), 300, dtype))
    with pytest.raises(VideoReadError, match="a.tiff: has pixels of type .*; expected 8 bits"):
        read_listed_frame(make_frame(path, 0, is_video_file=False))


def test_image_far_too_large(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), grey_frame(0))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(VideoReadError, match="a.png: cannot be read as an image .*exceeds limit"):
        read_listed_frame(make_frame(path, 0, is_video_file=False))


def test_single_frames_of_real_h264_equal_forward_decoding(shared_data):
    root = shared_data / "airborne_vid"
    document = json.loads((root / "annotations" / "val.json").read_text())
    path = root / document["videos"][7]["file_name"]
    wanted = [make_frame(path, i) | {"width": 640, "height": 512} for i in (3, 61, 140)]
    for frame, image in iterate_listed_frames(wanted):
        assert np.array_equal(image, read_listed_frame(frame))


@pytest.mark.parametrize("read", [lambda frame: next(iterate_listed_frames([frame])), read_listed_frame])
@pytest.mark.parametrize("is_video_file", [True, False])
def test_errors_tell_which_frame_of_which_video(tmp_path, read, is_video_file):
    path = tmp_path / "gone.x"
    with pytest.raises(VideoReadError, match="gone.x: the file does not exist") as caught:
        read({**make_frame(path, 7, is_video_file=is_video_file), "video_id": 3})
    copied = pickle.loads(pickle.dumps(caught.value))  # as between processes
    for error in (caught.value, copied):
        assert (error.file_name, error.video_id, error.frame_id) == (str(path), 3, 7)
