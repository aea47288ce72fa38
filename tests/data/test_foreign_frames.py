"""Data sets that Detectron2, or anybody else, has registered."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from eventful_vitdet.data import VideoTestLoader, load_frames
from eventful_vitdet.data.foreign_frames import complete_frames
from eventful_vitdet.errors import DatasetError

from .conftest import HEIGHT, WIDTH, frame_number, grey_frame, make_document, write_dataset, write_video  # noqa: F401


def entry(video: int | str, frame: int, **more) -> dict:
    name = f"{video}/{frame}.png"
    return {"file_name": name, "image_id": frame, "height": 4, "width": 4, "video_id": video, "frame_id": frame, **more}


def box(**changes) -> dict:
    return {"bbox": [1, 0, 2, 3], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 1, **changes}


def test_frames_of_videos_are_put_in_order_and_get_their_step():
    frames = complete_frames("x", [entry("b", 5), entry("a", 2), entry("b", 1), entry("b", 3)])
    assert [(f["video_id"], f["frame_id"], f["frame_step"]) for f in frames] == [
        ("b", 1, 2),
        ("b", 3, 2),
        ("b", 5, 2),
        ("a", 2, 1),
    ]
    assert all(f["annotations"] == [] and f["is_video_file"] is False for f in frames)


def test_what_is_there_is_kept():
    boxes = [box(instance_id="a"), box(instance_id=np.int64(2))]
    given = entry(1, 0, frame_step=7, is_video_file=True, annotations=boxes, depth="d.png")
    assert complete_frames("x", [given]) == [given]


def test_a_file_that_frames_share_is_a_video_file():
    frames = complete_frames("x", [entry(1, i, file_name="a.mp4") for i in (0, 1)] + [entry(2, 0)])
    assert [f["is_video_file"] for f in frames] == [True, True, False]


def test_a_still_is_a_video_of_one_frame():
    still = {"file_name": "a.jpg", "image_id": 9.0, "height": 4, "width": 4}
    (frame,) = complete_frames("x", [still])
    assert {k: frame[k] for k in ("video_id", "frame_id", "frame_step", "is_video_file", "image_id")} == {
        "video_id": "image 9",
        "frame_id": 0,
        "frame_step": 1,
        "is_video_file": False,
        "image_id": 9,
    }


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"image_id": 1, "height": 1, "width": 1}], "data set 'x': entry 0 has no 'file_name'"),
        ([entry(1, 0), {**entry(1, 1), "image_id": "a"}], "entry 1 has image_id 'a'; expected a whole number"),
        ([{k: v for k, v in entry(1, 0).items() if k != "frame_id"}], "a 'video_id' but no 'frame_id'"),
        ([entry(1, 3), entry(1, 3)], "frame_id 3 of video 1 is listed twice"),
        ([entry(1, 10**30)], "entry 0 has image_id 1000"),
        ([entry(1, 0, width=0)], "entry 0 has the size 0 x 4"),
        ([entry(1, 0, annotations=None)], "entry 0 has annotations None; expected a list"),
        ([entry(1, 0, annotations=["a"])], r"entry 0, annotations\[0\] is 'a'; expected a dict"),
        ([entry("\udcff", 0)], "entry 0 has video_id .*; expected a number or printable text"),
    ],
)
def test_what_is_missing_is_named(entries, message):
    with pytest.raises(DatasetError, match=message):
        complete_frames("x", entries)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"category_id": -1}, "has category_id -1; expected a whole number from 0 to 1"),
        ({"category_id": 2}, "has category_id 2; expected a whole number from 0 to 1"),
        ({"category_id": 0.0}, "has category_id 0.0"),
        ({"bbox": [1, 0, float("nan"), 3]}, "four finite numbers"),
        ({"bbox": None}, "has bbox None"),
        ({"bbox": [5, 0, 2, 3]}, "no side below 0"),
        ({"bbox_mode": None}, "expected BoxMode.XYXY_ABS or BoxMode.XYWH_ABS"),
        ({"bbox": [1, 0, 2, 3, 45], "bbox_mode": BoxMode.XYWHA_ABS}, "has bbox_mode"),
        ({"iscrowd": None}, "has iscrowd None; expected 0 or 1"),
        ({"area": None}, "has area None"),
        ({"area": float("nan")}, "has area nan"),
        ({"instance_id": 1.5}, "has instance_id 1.5"),
    ],
)
def test_annotations_that_cannot_be_compared_are_named_before_any_frame_is_run(changes, message):
    entries = [entry(1, 0, annotations=[box(), box(**changes)])]
    with pytest.raises(DatasetError, match=rf"data set 'x': entry 0, annotations\[1\] .*{message}"):
        complete_frames("x", entries, num_classes=2)


def test_annotations_may_hold_arrays_and_empty_boxes():
    numbers = {"bbox": np.array([1.0, 0.0, 0.0, 3.0]), "category_id": np.int64(1), "area": np.float32(2)}
    entries = [entry(1, 0, annotations=[box(**numbers, bbox_mode=1, iscrowd=True)])]
    assert complete_frames("x", entries) == complete_frames("x", entries, num_classes=2)


@pytest.fixture
def registered():
    """Registers a function as others do, and takes it out again."""
    names = []

    def register(load, **metadata) -> str:
        name = f"foreign_{len(names)}"
        DatasetCatalog.register(name, load)
        MetadataCatalog.get(name).set(**metadata)
        names.append(name)
        return name

    yield register
    for name in names:
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name)


def test_it_is_read_by_the_test_loader(registered, tmp_path):
    path = write_video(tmp_path / "a.avi", [grey_frame(i) for i in range(6)])
    shared = {"file_name": str(path), "height": HEIGHT, "width": WIDTH, "video_id": 3}
    name = registered(lambda: [{**shared, "image_id": i, "frame_id": i} for i in (4, 0, 2)], thing_classes=["a"])
    cv2.imwrite(str(tmp_path / "b.png"), grey_frame(7))
    for way in ("stop", "skip"):
        frames, bad = load_frames(name, way)
        assert bad == []
        loader = VideoTestLoader(frames, min_size=0, max_size=100, image_format="BGR")
        inputs = [item for (item,) in loader]
        assert [frame_number(item["image"].numpy()) for item in inputs] == [0, 2, 4]
        assert {item["frame_step"] for item in inputs} == {2}


def test_a_name_without_its_file_is_still_an_error(registered, tmp_path):
    path = tmp_path / "set.json"
    path.write_text(json.dumps(make_document({1: [0]})))
    name = registered(lambda: [entry(1, 0, file_name=str(tmp_path / "gone.png"))])
    frames, _ = load_frames(name)
    with pytest.raises(Exception, match="gone.png"):
        list(VideoTestLoader(frames, min_size=0, max_size=100, image_format="BGR"))
