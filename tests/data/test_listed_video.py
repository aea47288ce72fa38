from __future__ import annotations

import cv2
import pytest
from eventful_vitdet.data import load_coco_vid
from eventful_vitdet.data.coco_vid import group_by_video
from eventful_vitdet.data.listed_video import ListedVideo
from eventful_vitdet.errors import VideoReadError

from .conftest import frame_number, grey_frame, make_document, make_frame


def test_exactly_the_listed_frames_at_the_rate_that_their_step_leaves(write_dataset):
    frames = load_coco_vid(*write_dataset(make_document({1: [1, 3, 5], 2: [0]})))
    source = ListedVideo(group_by_video(frames)[0])
    assert (source.fps, source.num_frames, source.name) == (15.0, 3, frames[0]["file_name"])
    assert source.paths == [frames[0]["file_name"]]
    for start in (0, 2):
        given = [(frame.index, frame_number(frame.image), frame.seconds) for frame in source.frames(start)]
        assert given == [(i, 2 * i + 1, pytest.approx((2 * i + 1) / 30)) for i in range(3)][start:]  # the file's times
    assert [(f.index, f.step, frame_number(f.image)) for f in source.frames(0, 2)] == [(0, 2, 1), (2, 2, 5)]


def test_a_folder_of_frames(tmp_path):
    frames = [{**make_frame(tmp_path / f"{i}.png", i, is_video_file=False), "frame_step": 1} for i in range(2)]
    for i in range(2):
        cv2.imwrite(frames[i]["file_name"], grey_frame(i))
    source = ListedVideo(frames)
    assert (source.name, source.fps, len(source.paths)) == (str(tmp_path), 30.0, 2)
    assert [frame_number(frame.image) for frame in source.frames()] == [0, 1]


def test_a_video_that_is_gone(tmp_path):
    with pytest.raises(VideoReadError, match="gone.avi: the file does not exist"):
        ListedVideo([{**make_frame(tmp_path / "gone.avi", 0), "frame_step": 1}])
