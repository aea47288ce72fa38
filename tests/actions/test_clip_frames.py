"""Which frames of a video a clip consists of, and how they reach the model."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from eventful_vit.models.clip_views import ClipViews
from eventful_vitdet.actions.action_set_check import decode_clip
from eventful_vitdet.actions.clip import Clip
from eventful_vitdet.actions.clip_frames import frames_at, open_clip
from eventful_vitdet.actions.clip_loader import ClipReader
from eventful_vitdet.actions.training_clips import RandomViews
from eventful_vitdet.errors import DataError

from .conftest import write_video

VIEWS = ClipViews(4, 1, (24, 32), 2, 1, mean=(0.0,) * 3, std=(1.0,) * 3)


@pytest.fixture
def video(tmp_path) -> Clip:
    write_video(tmp_path / "v.mp4")
    return Clip("v", "clips.csv, line 2", str(tmp_path / "v.mp4"), {}, 0.5, 1.5)


def test_a_video_at_its_own_rate(video):
    assert open_clip(video, 30.0).numbers.tolist() == list(range(15, 45))
    assert open_clip(video, 0).numbers.tolist() == list(range(15, 45))


def test_a_video_of_twice_the_rate_gives_every_second_frame():
    seconds = np.arange(600) / 59.94
    numbers = frames_at(seconds, 2.0, 3.0, 30.0)
    assert len(numbers) == 30
    assert np.abs(seconds[numbers] - (2 + np.arange(30) / 30)).max() <= 0.5 / 59.94 + 1e-9


def test_a_video_of_a_lower_rate_repeats_frames():
    assert frames_at(np.arange(20) / 10, 0.0, 0.4, 20.0).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_stamps_decide_where_the_rate_varies():
    seconds = np.array([0.0, 0.1, 0.5, 0.52, 0.54, 1.0])
    assert frames_at(seconds, 0.5, 0.6, 50.0).tolist() == [2, 3, 4, 4, 4]
    assert frames_at(seconds, 0.5, 0.53, 0).tolist() == [2, 3]


def test_a_single_frame():
    assert frames_at(np.array([0.0]), 0.0, 1.0, 3.0).tolist() == [0, 0, 0]
    assert frames_at(np.arange(5) / 10, 0.21, 0.22, 30.0).tolist() == [2]


def test_images_are_those_of_the_times(video):
    frames = open_clip(video, 30.0)
    greys = [image[0, 0, 1] for image in frames.images([0, 3, 29])]
    np.testing.assert_allclose(greys, [60, 72, 176], atol=6)


def test_a_clip_may_end_a_little_late_and_no_more(video):
    assert len(open_clip(replace(video, stop=2.9), 30.0)) == 45
    with pytest.raises(DataError, match=r"^clips.csv, line 2: clip v: stops at 3.10 s, but .*v.mp4 ends at 2.00 s"):
        open_clip(replace(video, stop=3.1), 30.0)
    with pytest.raises(DataError, match=r"^clips.csv, line 2: clip v: begins at 2.00 s"):
        open_clip(replace(video, start=2.0, stop=2.5), 30.0)


def test_what_is_no_video_is_refused_by_line_and_file(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(DataError, match=r"clips.csv, line 7: .*v.mp4"):
        open_clip(Clip("v", "clips.csv, line 7", str(tmp_path / "v.mp4")), 30.0)


def test_folders_of_frames(tmp_path):
    with pytest.raises(DataError, match="holds no images"):
        open_clip(Clip("v", "clips.csv, line 2", str(tmp_path)), 30.0)
    for number in range(5):
        image = np.zeros((48, 64, 3), np.uint8)
        image[..., 2] = 40 * number  # red, as BGR
        cv2.imwrite(str(tmp_path / f"{number:04d}.png"), image)
    frames = open_clip(Clip("v", "clips.csv, line 2", str(tmp_path)), 30.0)
    assert len(frames) == 5
    assert [image[0, 0].tolist() for image in frames.images([1, 4])] == [[40, 0, 0], [160, 0, 0]]


def test_frames_of_a_folder_come_by_their_numbers(tmp_path):
    for number in (1, 2, 10, 11):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((48, 64, 3), 20 * number, np.uint8))
    frames = open_clip(Clip("v", "clips.csv, line 2", str(tmp_path)), 30.0)
    assert [image[0, 0, 0] for image in frames.images(range(4))] == [20, 40, 200, 220]


def test_the_reader_gives_what_cutting_the_whole_clip_gives(video):
    read = ClipReader([video], VIEWS, 30.0)[0]
    assert len(read["frames"]) == 8  # of 30: those that two spans of four frames need
    images = np.stack(list(open_clip(video, 30.0).images(range(30))))
    whole = VIEWS.cut(torch.from_numpy(images).permute(0, 3, 1, 2))
    torch.testing.assert_close(VIEWS.assemble(read["frames"], read["spans"]), whole)


def test_frames_of_several_sizes_are_refused(tmp_path):
    for number, side in enumerate((48, 50)):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((side, 64, 3), np.uint8))
    read = ClipReader([Clip("v", "clips.csv, line 2", str(tmp_path))], VIEWS, 30.0)[0]
    assert "clips.csv, line 2: clip v: " in read["error"] and "several sizes" in read["error"]


@pytest.mark.parametrize("read", ["open_clip", "evaluation", "training", "check"])
@pytest.mark.parametrize("fault", ["late", "no video", "no images", "damaged image", "several sizes"])
def test_every_reader_names_line_and_clip_once(video, tmp_path, read, fault):
    clip, reason = make_faulty(fault, video, tmp_path / "folder")
    if read == "open_clip" and fault in ("damaged image", "several sizes"):
        frames = open_clip(clip, 30.0)
        with pytest.raises(DataError) as caught:
            list(frames.images(range(len(frames))))
        text = str(caught.value)
    elif read in ("open_clip", "training"):
        with pytest.raises(DataError) as caught:
            open_clip(clip, 30.0) if read == "open_clip" else RandomViews([clip], VIEWS, 30.0)[0]
        text = str(caught.value)
    else:
        text = ClipReader([clip], VIEWS, 30.0)[0]["error"] if read == "evaluation" else decode_clip(clip)
    assert text.startswith("clips.csv, line 2: clip v: ") and reason in text
    assert text.count("clips.csv, line 2") == text.count("clip v: ") == 1


def make_faulty(fault: str, clip: Clip, folder: Path) -> tuple[Clip, str]:
    """A clip with a fault, and what is to be said of it."""
    folder.mkdir()
    if fault == "late":
        return replace(clip, stop=3.1), "stops at 3.10 s"
    if fault == "no video":
        (folder / "v.mp4").write_bytes(b"no video" * 100)
        return replace(clip, path=str(folder / "v.mp4")), "v.mp4"
    if fault == "no images":
        return replace(clip, path=str(folder)), "holds no images"
    for number in range(4):
        side = 50 if fault == "several sizes" and number == 1 else 48
        cv2.imwrite(str(folder / f"{number}.png"), np.zeros((side, 64, 3), np.uint8))
    if fault == "damaged image":
        (folder / "1.png").write_bytes(b"no image")
        return replace(clip, path=str(folder)), "1.png"
    return replace(clip, path=str(folder)), "several sizes: (50, 64) after (48, 64)"


def test_a_video_that_is_damaged_in_the_middle_is_an_error_of_its_clip(video, tmp_path):
    content = bytearray((tmp_path / "v.mp4").read_bytes())
    third = len(content) // 3
    content[third : 2 * third] = bytes(third)
    (tmp_path / "v.mp4").write_bytes(content)
    read = ClipReader([video], VIEWS, 30.0)[0]
    assert "clips.csv, line 2" in read["error"] and "v.mp4" in read["error"]
