"""The archive of the paper's authors: COCO-style JSON over flat folders of frames."""

from __future__ import annotations

import json
import shutil

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from eventful_vitdet.data import load_frames
from eventful_vitdet.data.coco_vid import group_by_video
from eventful_vitdet.data.listed_frames import read_listed_frame
from eventful_vitdet.errors import DatasetError

from .conftest import HEIGHT, WIDTH, write_jpeg

NAMES = [f"ILSVRC2015_val_00000007_{i:06d}" for i in (4, 5, 6, 9, 10)] + ["ILSVRC2015_val_00000003_000000"]


def make_document(names: list[str]) -> dict:
    images = [{"id": 50 + i, "file_name": f"{n}.JPEG", "width": WIDTH, "height": HEIGHT} for i, n in enumerate(names)]
    boxes = [
        {"id": i, "image_id": image["id"], "category_id": i % 30 + 1, "bbox": [i, 2, 9, 9], "area": 81, "iscrowd": 0}
        for i, image in enumerate(images)
    ]
    categories = [{"id": 1, "name": "airplane"}, {"id": 30, "name": "zebra"}]
    return {"info": {}, "images": images[::-1], "annotations": boxes, "categories": categories}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return tmp_path / "vid_data"


def write_flat(root, names, split="vid_val", json_split=None):
    for i, name in enumerate(names):
        write_jpeg(root / split / f"{name}.JPEG", i)
    path = root / "annotations" / f"{json_split or split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(make_document(names)))
    return path


def sequences(frames):
    return [[f["frame_id"] for f in video] for video in group_by_video(frames)]


def test_gaps_split_sequences(root):
    write_flat(root, NAMES)
    frames = DatasetCatalog.get("imagenet_vid_archive_vid_val")
    assert sequences(frames) == [[0], [4, 5, 6], [9, 10]]
    assert [f["image_id"] for f in frames] == [55, 50, 51, 52, 53, 54]
    assert {f["frame_step"] for f in frames} == {1}
    assert frames[1]["annotations"][0]["bbox"] == [0, 2, 9, 9] and frames[0]["annotations"][0]["category_id"] == 5
    metadata = MetadataCatalog.get("imagenet_vid_archive_vid_val")
    assert metadata.video_names == {1: "00000003_000000", 2: "00000007_000004", 3: "00000007_000009"}
    assert all(read_listed_frame(frame).shape == (HEIGHT, WIDTH, 3) for frame in frames)


def test_part_of_the_validation_set_shares_its_frames(root):
    write_flat(root, NAMES)
    write_flat(root, NAMES[:2], json_split="vid_minival")
    (first, second) = DatasetCatalog.get("imagenet_vid_archive_vid_minival")
    assert first["file_name"] == str(root / "vid_val" / f"{NAMES[0]}.JPEG")
    assert (first["video_id"], second["frame_id"]) == (1, 5)


def test_tree_that_the_authors_code_makes(root):
    path = write_flat(root, NAMES)
    expected = DatasetCatalog.get("imagenet_vid_archive_vid_val")
    for name in NAMES:
        video, number = name.split("_")[-2:]
        target = root / "vid_val" / "frames" / video / f"{number}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        (root / "vid_val" / f"{name}.JPEG").rename(target)
    path.rename(root / "vid_val" / "labels.json")
    frames = DatasetCatalog.get("imagenet_vid_archive_vid_val")
    assert frames[1]["file_name"] == str(root / "vid_val" / "frames" / "00000007" / "000004.jpg")
    assert [{**f, "file_name": ""} for f in frames] == [{**f, "file_name": ""} for f in expected]
    shutil.copytree(root / "vid_val", root / "vid_minival")
    assert len(DatasetCatalog.get("imagenet_vid_archive_vid_minival")) == 6


def test_images_are_videos_of_one_frame(root):
    write_flat(root, ["n02084071_10", "n02084071_11", "ILSVRC2014_train_00060036"], "det_train")
    frames = DatasetCatalog.get("imagenet_vid_archive_det_train")
    assert sequences(frames) == [[10], [11], [60036]]


def test_absent_frame_and_box_of_no_area(root):
    path = write_flat(root, NAMES)
    document = json.loads(path.read_text())
    document["annotations"][3]["bbox"] = [2, 2, 0, 9]  # the sequence of frames 9 and 10
    path.write_text(json.dumps(document))
    with pytest.raises(DatasetError, match=f"1 of its videos.*{path}: annotation 3, of .*has a box of no area"):
        DatasetCatalog.get("imagenet_vid_archive_vid_val")
    (root / "vid_val" / f"{NAMES[1]}.JPEG").unlink()
    with pytest.raises(DatasetError, match=f"2 of its videos.*{NAMES[1]}.JPEG: does not exist"):
        DatasetCatalog.get("imagenet_vid_archive_vid_val")
    frames, bad = load_frames("imagenet_vid_archive_vid_val", "skip")
    assert sequences(frames) == [[0]]
    assert [video.name for video in bad] == ["00000007_000004", "00000007_000009"]


def test_boxes_are_cut_off_at_the_edges(root):
    path = write_flat(root, NAMES)
    document = json.loads(path.read_text())
    document["annotations"][0]["bbox"] = [-4, 2, 90, 9]
    path.write_text(json.dumps(document))
    frames = DatasetCatalog.get("imagenet_vid_archive_vid_val")
    assert frames[1]["annotations"][0]["bbox"] == [0, 2, WIDTH, 9]


def change(table, position, **values):
    return lambda document: document[table][position].update(values)


BAD_DOCUMENTS = {
    "no table": (lambda d: d.pop("annotations"), "key 'annotations' is missing"),
    "no images": (lambda d: d.update(images=[]), "'images' is empty"),
    "name": (change("images", 0, file_name="frame.JPEG"), "'frame.JPEG' does not end in _<video>_<number>"),
    "no name": (change("images", 0, file_name=None), r"images\[0\]: expected an object with 'id' and 'file_name'"),
    "endless number": (change("images", 0, file_name=f"a_b_{'9' * 5000}.JPEG"), "does not end in _<video>_<number>"),
    "id beyond 64 bits": (change("images", 0, id=10**20), r"images\[0\]: expected an object with 'id' and 'file_name'"),
    "same id": (change("images", 0, id=50), "id 50 occurs more than once"),
    "same frame": (change("images", 0, file_name=f"{NAMES[0]}.JPEG"), "frame_id 4 of video .* is listed twice"),
    "class": (change("annotations", 0, category_id=31), "annotation 0 has category_id 31"),
    "no list of classes": (lambda d: d.update(categories=None), "'categories' must be a list, found NoneType"),
    "class name": (change("categories", 0, name="zebra"), "gives 'zebra' the id 1; in ImageNet VID it is 30"),
    "box": (change("annotations", 0, bbox=[1, 2]), "expected four finite numbers"),
    "annotation": (lambda d: d["annotations"].append(7), r"annotations\[6\] must be an object"),
    "image of annotation": (change("annotations", 0, image_id=[]), r"annotation 0 has image_id \[\]"),
    "size": (change("images", 0, width=None), "has width None"),
}


@pytest.mark.parametrize("name", BAD_DOCUMENTS)
def test_bad_json_is_refused(root, name):
    path = write_flat(root, NAMES)
    spoil, message = BAD_DOCUMENTS[name]
    document = json.loads(path.read_text())
    spoil(document)
    path.write_text(json.dumps(document))
    with pytest.raises(DatasetError, match=f"{path}: .*{message}"):
        DatasetCatalog.get("imagenet_vid_archive_vid_val")


def test_ids_written_as_floats_and_names_of_windows(root):
    path = write_flat(root, NAMES)
    expected = DatasetCatalog.get("imagenet_vid_archive_vid_val")
    document = json.loads(path.read_text())
    for image in document["images"]:
        image.update(id=float(image["id"]), width=float(WIDTH), file_name=f"vid_val\\{image['file_name']}")
    for annotation in document["annotations"]:
        annotation.update(image_id=float(annotation["image_id"]), category_id=float(annotation["category_id"]))
    path.write_text(json.dumps(document))
    assert DatasetCatalog.get("imagenet_vid_archive_vid_val") == expected


def test_absent_archive_and_absent_frames(root):
    with pytest.raises(DatasetError, match="neither annotations/vid_val.json nor vid_val/labels.json.*vid_data/"):
        DatasetCatalog.get("imagenet_vid_archive_vid_val")
    write_flat(root, NAMES)
    shutil.rmtree(root / "vid_val")
    with pytest.raises(DatasetError, match="has none of the 6 frames of vid_val; expected, for example, vid_val/IL"):
        DatasetCatalog.get("imagenet_vid_archive_vid_val")
