"""YouTube-VIS files: objects with lists of boxes and masks, read as frames with boxes and masks."""

from __future__ import annotations

import copy
import json

import cv2
import numpy as np
import pytest
from eventful_vitdet.cli.check_dataset_command import main as check
from eventful_vitdet.data.coco_vid import parse_coco_vid
from eventful_vitdet.data.imagenet_vid.convert import coco_to_official
from eventful_vitdet.data.imagenet_vid.xml_files import read_xml
from eventful_vitdet.data.segmentations import has_masks
from eventful_vitdet.errors import DatasetError

from .conftest import HEIGHT, WIDTH, grey_frame

SQUARE = [[2, 3, 12, 3, 12, 13, 2, 13]]
RUNS = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * 4 + 5, 6, HEIGHT * WIDTH - HEIGHT * 4 - 11]}
DOCUMENT = {
    "info": {"description": "YouTube-VOS"},
    "categories": [{"id": 1, "name": "person"}, {"id": 4, "name": "snake"}],
    "videos": [
        {"id": 9, "file_names": [f"ab12/0000{n}.png" for n in (0, 5)], "height": HEIGHT, "width": WIDTH},
        {
            "id": 3,
            "file_names": [f"cd34/0000{n}.png" for n in (0, 5, 8)],
            "height": HEIGHT,
            "width": WIDTH,
            "length": 3,
        },
    ],
    "annotations": [
        {
            "id": 70,
            "video_id": 3,
            "category_id": 4,
            "iscrowd": 0,
            "bboxes": [[2.0, 3.0, 10.0, 10.0], None, [4.0, 5.0, 1.0, 6.0]],
            "segmentations": [SQUARE, None, RUNS],
            "areas": [100, None, 6],
        },
        {"id": 71, "video_id": 9, "category_id": 1, "segmentations": [None, RUNS], "areas": [None, 6]},
    ],
}


@pytest.fixture
def write(tmp_path):
    """Writes a document and its images; returns the JSON file."""

    def write(document: dict, folder: str = "train/JPEGImages") -> str:
        for video in DOCUMENT["videos"]:
            for number, name in enumerate(video["file_names"]):
                path = tmp_path / folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), grey_frame(number))
        path = tmp_path / "train.json"
        path.write_text(json.dumps(document))
        return str(path)

    return write


@pytest.mark.parametrize("folder", ["", "JPEGImages", "train/JPEGImages"])
def test_objects_become_frames_with_boxes_and_masks(write, tmp_path, folder):
    data = parse_coco_vid(write(DOCUMENT, folder), str(tmp_path))
    assert data.classes == ["person", "snake"] and data.video_names == {9: "ab12", 3: "cd34"}
    assert [(f["video_id"], f["frame_id"], f["image_id"]) for f in data.frames] == [
        *((9, 0, 1), (9, 1, 2)),
        *((3, 0, 3), (3, 1, 4), (3, 2, 5)),
    ]
    assert [len(f["annotations"]) for f in data.frames] == [0, 1, 1, 0, 1] and has_masks(data.frames)
    first, last = data.frames[2]["annotations"][0], data.frames[4]["annotations"][0]
    assert first["bbox"] == [2, 3, 10, 10] and first["segmentation"] == SQUARE and first["area"] == 100
    assert first["category_id"] == last["category_id"] == 1 and first["instance_id"] == last["instance_id"] == 70
    assert last["segmentation"] == RUNS
    assert data.frames[1]["annotations"][0]["bbox"] == [4, 5, 1, 6]  # that of the mask


def test_the_check_counts_masks_and_names_missing_images(write, tmp_path, capsys):
    path = write(DOCUMENT)
    assert check([path]) == 0
    said = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert {"frames 5", "masks 3", "tracks 2"} <= set(lines) and "no annotations" not in said
    (tmp_path / "train" / "JPEGImages" / "cd34" / "00008.png").unlink()
    assert check([path, "--quick"]) == 1
    assert "cd34/00008.png: does not exist" in capsys.readouterr().out


def test_boxes_alone_will_do(write, tmp_path):
    document = copy.deepcopy(DOCUMENT)
    for annotation in document["annotations"]:
        annotation["bboxes"] = annotation.get("bboxes", [None, [1, 1, 5, 5]])
        del annotation["segmentations"]
    frames = parse_coco_vid(write(document), str(tmp_path)).frames
    assert sum(len(frame["annotations"]) for frame in frames) == 3 and not has_masks(frames)


def put(values: list, place: int, value: object) -> None:
    values[place] = value


def drop_last(document: dict, key: str) -> None:
    document["annotations"][0][key].pop()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda d: drop_last(d, "bboxes"), "70 has bboxes with 2 entries; its video has 3 frames"),
        (lambda d: d["annotations"][0].update(areas="x"), "annotation 70 has areas with 'x'"),
        (lambda d: d["annotations"][0].update(bboxes=None, segmentations=None), "neither 'bboxes' nor 'segmentations'"),
        (lambda d: put(d["annotations"][0]["segmentations"], 2, [[1, 2]]), r"70, segmentations\[2\] has"),
        (lambda d: put(d["annotations"][0]["areas"], 0, -4), r"annotation 70, areas\[0\] is -4; expected"),
        (lambda d: put(d["annotations"][0]["bboxes"], 2, [1, 2]), r"annotation 70, frame 2 has box"),
        (lambda d: d["annotations"][0].update(category_id=2), "annotation 70, frame 0 has category_id 2"),
        (lambda d: d["annotations"][1].update(video_id=2), "annotation 71 has video_id 2, which 'videos'"),
        (lambda d: d["annotations"][1].update(id=70), "id 70 occurs more than once in 'annotations'"),
        (lambda d: d["annotations"][1].pop("category_id"), r"annotations\[1\] has no key 'category_id'"),
        (lambda d: d["annotations"].append(7), r"annotations\[2\] must be an object, found 7"),
        (lambda d: d["videos"][1].update(file_names=[]), r"videos\[1\] has file_names \[\]; expected a list"),
        (lambda d: put(d["videos"][1]["file_names"], 1, "a\0.png"), r"videos\[1\] has file_names .*a\\x00.png"),
        (lambda d: put(d["videos"][1]["file_names"], 1, "../x.png"), r"videos\[1\], file_names\[1\] names the"),
        (lambda d: d["videos"][1].update(height=None), r"videos\[1\] has height None"),
        (lambda d: d["videos"][1].update(id=9), "id 9 occurs more than once in 'videos'"),
        (lambda d: d.update(annotations={}), "'annotations' must be a list, found dict"),
        (lambda d: d.pop("categories"), "key 'categories' is missing"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_key_and_row(write, tmp_path, change, message):
    document = copy.deepcopy(DOCUMENT)
    change(document)
    with pytest.raises(DatasetError, match=rf"train\.json: .*{message}"):
        parse_coco_vid(write(document), str(tmp_path))


def test_an_empty_mask_shows_nothing(write, tmp_path):
    document = copy.deepcopy(DOCUMENT)
    document["annotations"][1]["segmentations"][0] = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}
    assert parse_coco_vid(write(document), str(tmp_path)).frames[0]["annotations"] == []


@pytest.mark.parametrize("as_null", [True, False])
def test_published_validation_files_have_no_annotations(write, tmp_path, capsys, as_null):
    document = {**DOCUMENT, "annotations": None}
    if not as_null:
        del document["annotations"]
    data = parse_coco_vid(write(document), str(tmp_path))
    assert len(data.frames) == 5 and not any(frame["annotations"] for frame in data.frames)
    assert check([str(tmp_path / "train.json")]) == 0
    assert "complete; every frame was decoded; there are no annotations" in capsys.readouterr().out


def test_missing_areas_are_those_of_the_masks(write, tmp_path):
    document = copy.deepcopy(DOCUMENT)
    for annotation in document["annotations"]:
        del annotation["areas"]
    frames = parse_coco_vid(write(document), str(tmp_path)).frames
    assert [entry["area"] for frame in frames for entry in frame["annotations"]] == [6, 100, 6]


def test_a_box_around_polygons(write, tmp_path):
    document = copy.deepcopy(DOCUMENT)
    document["annotations"][1]["segmentations"][1] = [*SQUARE, [20, 20, 30, 20, 30, 25, 20, 25]]
    [entry] = parse_coco_vid(write(document), str(tmp_path)).frames[1]["annotations"]
    np.testing.assert_allclose(entry["bbox"], [2, 3, 28, 22], atol=1)


def test_imagenets_layout_holds_boxes_of_its_own_classes(write, tmp_path):
    document = copy.deepcopy(DOCUMENT)
    path, target = write(document), tmp_path / "ILSVRC2015"
    with pytest.raises(DatasetError, match="category 'person' is none of the 30 classes of ImageNet VID"):
        coco_to_official(path, str(tmp_path), str(target))
    document["categories"] = [{"id": 1, "name": "dog"}, {"id": 4, "name": "snake"}]
    assert coco_to_official(write(document), str(tmp_path), str(target)) == (2, 5)
    folder = target / "Annotations" / "VID" / "val" / "cd34"
    assert [len(read_xml(str(folder / f"00000{n}.xml")).objects) for n in range(3)] == [1, 0, 1]
    (item,) = read_xml(str(folder / "000000.xml")).objects
    assert item.track == 70 and item.box == (2, 3, 10, 10)


def test_objects_that_are_never_shown_are_counted(write, tmp_path, caplog):
    document = copy.deepcopy(DOCUMENT)
    document["annotations"][0].update(bboxes=[None] * 3, segmentations=[None] * 3, areas=[None] * 3)
    frames = parse_coco_vid(write(document), str(tmp_path)).frames
    assert sum(len(frame["annotations"]) for frame in frames) == 1
    assert "1 objects are shown in no frame and left out, the first is annotation 70" in caplog.text
