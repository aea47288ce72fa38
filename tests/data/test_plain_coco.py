"""Plain COCO over frames, as annotation programs export it, made a COCO-VID file."""

from __future__ import annotations

import json

import cv2
import pytest
from eventful_vitdet.data import load_coco_vid
from eventful_vitdet.data.listed_frames import read_listed_frame
from eventful_vitdet.data.plain_coco import convert_plain_coco
from eventful_vitdet.errors import DatasetError

from .conftest import HEIGHT, WIDTH, frame_number, grey_frame


def export(names: list[str], **more) -> dict:
    """As CVAT writes it: an object with a track in every frame."""
    images = [
        {"id": i, "width": WIDTH, "height": HEIGHT, "file_name": name, "license": 0, "date_captured": 0}
        for i, name in enumerate(names, 1)
    ]
    annotations = [
        {
            "id": i,
            "image_id": i,
            "category_id": 2,
            "segmentation": [],
            "area": 80.0,
            "bbox": [1.0 + i, 2.0, 10.0, 8.0],
            "iscrowd": 0,
            "attributes": {"occluded": i % 2 == 0, "rotation": 0.0, "track_id": 4, "keyframe": True},
        }
        for i in range(1, len(names) + 1)
    ]
    categories = [{"id": 1, "name": "cat", "supercategory": ""}, {"id": 2, "name": "dog", "supercategory": ""}]
    return {"licenses": [], "info": {}, "categories": categories, "images": images, "annotations": annotations, **more}


@pytest.fixture
def convert(tmp_path):
    """Writes the frames and the export, converts it, and returns what loading the new file gives."""

    def call(document: dict, folder: str = "", written: list[str] | None = None, **options):
        for i, name in enumerate(written or [image["file_name"] for image in document["images"]]):
            path = tmp_path / folder / name.replace("\\", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), grey_frame(i))
        source, output = tmp_path / "annotations" / "instances_default.json", tmp_path / "annotations" / "videos.json"
        source.parent.mkdir(exist_ok=True)
        source.write_text(json.dumps(document))
        done = convert_plain_coco(str(source), str(output), str(tmp_path), **options)
        frames = load_coco_vid(str(output), str(tmp_path))
        assert (done.frames, done.boxes) == (len(frames), sum(len(frame["annotations"]) for frame in frames))
        return done, frames

    return call


def numbers(frames: list[dict]) -> list[tuple[int, int]]:
    return [(frame["video_id"], frame["frame_id"]) for frame in frames]


def test_frames_of_a_video_as_cvat_exports_it(convert):
    done, frames = convert(export([f"frame_{i:06d}.PNG" for i in (0, 1, 2, 10)]), folder="images")
    assert (done.videos, done.tracks, done.single_frames, done.absent_files) == (1, 1, 0, 0)
    assert numbers(frames) == [(1, 0), (1, 1), (1, 2), (1, 10)]
    assert [frame_number(read_listed_frame(frame)) for frame in frames] == [0, 1, 2, 3]
    (box,) = frames[1]["annotations"]
    assert (box["bbox"], box["instance_id"], box["category_id"], box["occluded"]) == ([3, 2, 10, 8], 4, 1, 1)


def test_frames_in_a_folder_for_each_video(convert):
    done, frames = convert(export(["b/3.png", "a10/1.png", "a9/1.png", "b/2.png"]), images=None)
    assert done.videos == 3 and numbers(frames) == [(1, 1), (2, 1), (3, 2), (3, 3)]
    assert [frame["file_name"].split("/")[-2] for frame in frames] == ["a9", "a10", "b", "b"]


def test_folders_with_long_numbers_are_sorted_by_them(convert):
    folders = [f"a{9 * 10**20}", f"a{10**21}"]
    _, frames = convert(export([f"{folder}/1.png" for folder in reversed(folders)]), images=None)
    assert [frame["file_name"].split("/")[-2] for frame in frames] == folders


@pytest.mark.parametrize(
    ("names", "videos"),
    [
        (["clip_a_0001.jpg", "clip_a_0002.jpg", "clip_b_0001.jpg"], {"clip_a": 2, "clip_b": 1}),
        (["x1-000.jpg", "x1-001.jpg", "x2-000.jpg"], {"x1": 2, "x2": 1}),
        (["12.jpg", "3.jpg"], {"video": 2}),
        (["images\\0a1b2c3d-frame_1.jpg", "images\\99aabbcc-frame_2.jpg"], {"images/frame": 2}),  # Label Studio
        (["clip_mp4-0007_jpg.rf.a01b3.jpg", "clip_mp4-0008_jpg.rf.77ff1.jpg"], {"clip_mp4": 2}),  # Roboflow
    ],
)
def test_names_of_frames(convert, tmp_path, names, videos):
    _, frames = convert(export(names))
    written = json.loads((tmp_path / "annotations" / "videos.json").read_text())["videos"]
    assert [video["name"] for video in written] == list(videos)
    assert [sum(f["video_id"] == video["id"] for f in frames) for video in written] == list(videos.values())


def test_a_pattern_tells_videos_and_frames(convert):
    names = ["t5_camA.jpg", "t6_camA.jpg", "t5_camB.jpg"]
    done, frames = convert(export(names), pattern=r"t(?P<frame>[0-9]+)_(?P<video>cam.)")
    assert done.videos == 2 and numbers(frames) == [(1, 5), (1, 6), (2, 5)]


def test_folders_of_another_machine(convert, tmp_path):
    document = export(["/data/upload/1/f_1.jpg", "..\\..\\upload\\2\\f_2.jpg"])
    with pytest.raises(DatasetError, match=r"images\[0\] names the file '/data/upload/1/f_1.jpg'.*--names-only"):
        convert(document, written=["f_1.jpg"])
    written = ["f_1.jpg", "f_2.jpg"]
    done, frames = convert(document, "frames", written, names_only=True, images=str(tmp_path / "frames"))
    assert done.absent_files == 0 and numbers(frames) == [(1, 1), (1, 2)]


def test_frames_elsewhere(convert, tmp_path):
    done, frames = convert(export(["a_1.png", "a_2.png"]), folder="some/where", images=str(tmp_path / "some" / "where"))
    assert [frame["file_name"] for frame in frames] == [f"{tmp_path}/some/where/a_{i}.png" for i in (1, 2)]
    with pytest.raises(DatasetError, match="is not below the new file's root"):
        convert(export(["a_1.png"]), images=str(tmp_path.parent))


def test_tracks_of_other_programs(convert):
    document = export(["a_1.png", "a_2.png", "a_3.png"])
    first, second, third = document["annotations"]
    first["attributes"] = {"track_id": "person 7"}
    second.pop("attributes")
    second["track_id"] = 9.0
    third.update(attributes=None, ignore=0, bbox=[1, 2, 0, 0])
    _, frames = convert({**document, "annotations": [first, second]})
    assert [frame["annotations"][0]["instance_id"] for frame in frames[:2]] == ["person 7", 9]


def test_ids_from_0_as_label_studio_counts(convert):
    document = export(["a_1.png", "a_2.png"])
    for table in ("images", "annotations", "categories"):
        for entry in document[table]:
            entry.update({key: entry[key] - 1 for key in ("id", "image_id", "category_id") if key in entry})
    _, frames = convert(document)
    assert [frame["image_id"] for frame in frames] == [0, 1]
    assert frames[0]["annotations"][0]["category_id"] == 1


def change(table: str, position: int, **values):
    return lambda document: document[table][position].update(values)


BAD_EXPORTS = {
    "no number": (change("images", 1, file_name="a.png"), r"images\[1\]: file_name 'a.png' has no number; --pattern"),
    "NUL in a name": (change("images", 1, file_name="1\0.png"), r"images\[1\] has no usable .* \(found '1\\x00.png'\)"),
    "no name": (change("images", 1, file_name=None), r"images\[1\] has no usable 'file_name' \(found None\)"),
    "same frame": (
        change("images", 1, file_name="a_01.png"),
        r"'a_01.png' is frame 1 of video 'a', but so is 'a_1",
    ),
    "endless number": (change("images", 1, file_name=f"a_{'9' * 300}.png"), "is no number of a frame"),
    "no width": (change("images", 1, width=None), "image 2 has width None"),
    "track": (change("annotations", 0, attributes={"track_id": 1.5}), r"annotations\[0\] has track_id 1.5"),
    "image": (change("annotations", 0, image_id=77), "annotation 1 has image_id 77"),
    "annotation": (lambda d: d["annotations"].append(3), r"annotations\[2\] must be an object, found 3"),
    "no table": (lambda d: d.pop("categories"), "key 'categories' is missing"),
}


@pytest.mark.parametrize("name", BAD_EXPORTS)
def test_bad_exports_write_nothing(convert, tmp_path, name):
    spoil, message = BAD_EXPORTS[name]
    document = export(["a_1.png", "a_2.png"])
    spoil(document)
    with pytest.raises(DatasetError, match=message):
        convert(document, written=["a_1.png"])
    assert not (tmp_path / "annotations" / "videos.json").exists()


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(", "is no regular expression"), ("[0-9]+", "has no group"), ("(?P<frame>x[0-9]+)", "does not match")],
)
def test_bad_patterns(convert, pattern, message):
    with pytest.raises(DatasetError, match=message):
        convert(export(["a_1.png"]), pattern=pattern)


def test_the_input_is_not_overwritten(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(export(["a_1.png"])))
    with pytest.raises(DatasetError, match="is the input itself"):
        convert_plain_coco(str(path), str(path), str(tmp_path))
