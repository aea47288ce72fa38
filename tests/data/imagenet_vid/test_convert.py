"""From ImageNet's layout to COCO-VID and back: nothing is lost."""

from __future__ import annotations

import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from eventful_vitdet.cli.convert_imagenet_vid_command import main
from eventful_vitdet.data import load_coco_vid
from eventful_vitdet.data.imagenet_vid.convert import coco_to_official, official_to_coco
from eventful_vitdet.data.imagenet_vid.xml_files import XmlFrame, XmlObject, format_xml, read_xml
from eventful_vitdet.data.listed_frames import read_listed_frame
from eventful_vitdet.errors import DatasetError

from ..conftest import grey_frame, write_video
from .conftest import xml_object, xml_text

NAMES = ["imagenet_vid_val", "imagenet_vid_train", "imagenet_vid_train_all", "imagenet_det_30_train"]


def without_files(frames):
    return [{**frame, "file_name": ""} for frame in frames]


@pytest.mark.parametrize("name", NAMES)
def test_coco_file_serves_the_same_frames(full_tree, name):
    path = full_tree.root / "set.json"
    expected = DatasetCatalog.get(name)
    numbers = official_to_coco(name, str(full_tree.root), str(path))
    assert load_coco_vid(str(path), str(full_tree.root)) == expected
    boxes = sum(len(frame["annotations"]) for frame in expected)
    assert numbers == (len({frame["video_id"] for frame in expected}), len(expected), boxes)


@pytest.mark.parametrize("name", NAMES)
def test_round_trip_of_the_official_layout(full_tree, tmp_path, monkeypatch, name):
    official_to_coco(name, str(full_tree.root), str(full_tree.root / "set.json"))
    kind, part = ("DET" if "det" in name else "VID"), ("val" if "val" in name else "train")
    target = tmp_path / "other" / "ILSVRC2015"
    coco_to_official(str(full_tree.root / "set.json"), str(full_tree.root), str(target), kind=kind, part=part)
    expected = DatasetCatalog.get(name)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "other"))
    frames = DatasetCatalog.get(name)
    assert without_files(frames) == without_files(expected)
    assert all(frame["file_name"].startswith(str(target)) for frame in frames)
    assert np.array_equal(read_listed_frame(frames[1]), read_listed_frame(expected[1]))
    for frame in expected:
        stem = frame["file_name"].split(f"Data/{kind}/")[1][: -len(".JPEG")]
        assert read_xml(str(target / "Annotations" / kind / f"{stem}.xml")) == without_others(full_tree, kind, stem)


def without_others(tree, kind, stem):
    """The tree's own XML file, less the objects of classes that do not count."""
    frame = read_xml(str(tree.xml(kind, stem)))
    return frame._replace(objects=[item for item in frame.objects if item.name != "n07739125"])


def test_corners_outside_of_the_image_survive(full_tree, tmp_path):
    """The COCO-VID file has the part inside, which its readers insist on, and the XML file's own corners beside it."""
    stem = "val/ILSVRC2015_val_00000000/000000"
    full_tree.xml("VID", stem).write_text(xml_text(xml_object("car", (-3, 4, 60, 12)), xml_object("dog", (1, 2, 3, 4))))
    path = full_tree.root / "set.json"
    official_to_coco("imagenet_vid_val", str(full_tree.root), str(path))
    first, second, *_ = json.loads(path.read_text())["annotations"]
    assert (first["bbox"], first["xml_box"], second["bbox"]) == ([0, 4, 48, 8], [-3, 4, 63, 8], [1, 2, 2, 2])
    assert "xml_box" not in second
    coco_to_official(str(path), str(full_tree.root), str(tmp_path / "other"), frames="none")
    assert read_xml(str(tmp_path / "other" / "Annotations" / "VID" / f"{stem}.xml")) == read_xml(
        str(full_tree.xml("VID", stem))
    )
    assert not (tmp_path / "other" / "Data").exists()


def test_xml_keeps_every_digit(tmp_path):
    generator = np.random.default_rng(0)
    items = [
        # Numbers of 17 digits, of very different size, next to whole ones.
        XmlObject("n02691156", (*corner, *side), track, *flags)
        for corner, side, track, flags in zip(
            (generator.uniform(-1, 1, (300, 2)) * 10.0 ** generator.integers(-9, 7, (300, 2))).round(0).tolist()
            + (generator.uniform(-1, 1, (300, 2)) * 10.0 ** generator.integers(-9, 7, (300, 2))).tolist(),
            (generator.uniform(0.1, 1, (600, 2)) * 10.0 ** generator.integers(-9, 7, (600, 2))).tolist(),
            generator.integers(-1, 9, 600).tolist(),
            generator.integers(-1, 2, (600, 3)).tolist(),
        )
    ]
    frame = XmlFrame(640, 480, items)
    (tmp_path / "a.xml").write_text(format_xml("folder & <more>", "000001", frame))
    assert read_xml(str(tmp_path / "a.xml")) == frame


def make_document(root) -> dict:
    """A video file, every second frame, fractional boxes, ids that are not 1, 2, 3, and a crowd without a track."""
    write_video(root / "clips" / "a.avi", [grey_frame(i) for i in range(6)])
    boxes = [[0.1, 0.2, 30.3, 20.7], [1 / 3, 2 / 3, 10.1, 0.7], [5, 6, 7, 8]]
    marks = [{"instance_id": 4, "occluded": 1, "generated": 0}, {"iscrowd": 1}, {"instance_id": 9}]
    return {
        "categories": [{"id": 3, "name": "zebra"}, {"id": 8, "name": "bird"}],
        "videos": [{"id": 11, "name": "a", "file_name": "clips/a.avi", "width": 64, "height": 48}],
        "images": [{"id": 70 - i, "video_id": 11, "frame_id": 2 * i} for i in range(3)],
        "annotations": [
            {"id": 5 + i, "image_id": 70, "category_id": 3 if i else 8, "bbox": box, **mark}
            for i, (box, mark) in enumerate(zip(boxes, marks))
        ],
    }


def test_round_trip_of_a_coco_file(tree, tmp_path):
    path = tmp_path / "mine" / "set.json"
    document = make_document(tmp_path / "mine")
    path.write_text(json.dumps(document))
    expected = load_coco_vid(str(path), str(path.parent))
    coco_to_official(str(path), str(path.parent), str(tree.root), part="val")
    official_to_coco("imagenet_vid_val", str(tree.root), str(tree.root / "set.json"))
    frames = load_coco_vid(str(tree.root / "set.json"), str(tree.root))
    keys = ("frame_id", "frame_step", "image_id", "width", "height")
    assert [[f[key] for key in keys] for f in frames] == [[f[key] for key in keys] for f in expected]
    # Class 0 and 1 of the file are birds and zebras of ImageNet.
    assert [{**a, "category_id": 29 if a["category_id"] == 0 else 4} for a in expected[0]["annotations"]] == (
        frames[0]["annotations"]
    )
    difference = read_listed_frame(frames[2]).astype(int) - read_listed_frame(expected[2])
    assert np.abs(difference).max() <= 3  # JPEG of a grey frame


def test_names_of_windows_become_folders(tree, tmp_path):
    document = make_document(tmp_path / "mine")
    del document["videos"][0]["name"]
    document["videos"][0]["file_name"] = "clips\\a.avi"
    path = tmp_path / "mine" / "set.json"
    path.write_text(json.dumps(document))
    assert coco_to_official(str(path), str(path.parent), str(tree.root), part="val") == (1, 3)
    assert (tree.root / "Annotations" / "VID" / "val" / "clips" / "a.avi" / "000000.xml").is_file()


def test_a_box_outside_of_its_image_is_left_out(tree, tmp_path):
    document = make_document(tmp_path / "mine")
    document["annotations"][0]["bbox"] = [80, 4, 5, 5]
    path = tmp_path / "mine" / "set.json"
    path.write_text(json.dumps(document))
    expected = load_coco_vid(str(path), str(path.parent))
    coco_to_official(str(path), str(path.parent), str(tree.root), part="val")
    frames = DatasetCatalog.get("imagenet_vid_val")
    assert sum(len(f["annotations"]) for f in frames) == sum(len(f["annotations"]) for f in expected) > 0


def test_copies_of_image_files(full_tree, tmp_path):
    official_to_coco("imagenet_vid_val", str(full_tree.root), str(full_tree.root / "set.json"))
    coco_to_official(str(full_tree.root / "set.json"), str(full_tree.root), str(tmp_path / "new"), frames="copy")
    for image in (full_tree.root / "Data" / "VID" / "val").rglob("*.JPEG"):
        copy = tmp_path / "new" / image.relative_to(full_tree.root)
        assert copy.read_bytes() == image.read_bytes() and not copy.is_symlink()


def change(table, **values):
    return lambda document: document[table][0].update(values)


BAD_DOCUMENTS = {
    "class": (change("categories", name="drone"), "category 'drone' is none of the 30 classes"),
    "wnid": (change("categories", wnid="n1"), "category 'zebra' is none of the 30 classes"),
    "name above": (change("videos", name="../../a"), "cannot be '../../a'"),
    "endless name": (change("videos", name="x" * 300), "a video's name becomes a folder and cannot be .{,90}$"),
    "name with a space": (change("videos", name="a b"), "cannot be 'a b'"),
    "track": (change("annotations", instance_id="x"), "annotation 5 has instance_id 'x'"),
    "huge track": (change("annotations", instance_id=2**40), "annotation 5 has instance_id"),
    "box of the XML file": (change("annotations", xml_box=[1, "x", 3, 4]), "annotation 5 has xml_box"),
    "endless box": (change("annotations", xml_box=[1, float("inf"), 3, 4]), "annotation 5 has xml_box"),
    "huge box": (change("annotations", bbox=[0, 0, 1e10, 9]), "annotation 5 has the box .* corners below 16777216"),
    "box that was moved since": (
        change("annotations", xml_box=[-3, 4, 63, 8], bbox=[2, 4, 58, 8]),
        "annotation 5 has xml_box .*, but bbox .* is not its part inside of the image",
    ),
    "wnid that is a list": (change("categories", wnid=["n02391049"]), "category 'zebra' is none of the 30 classes"),
    "absent file": (change("videos", file_name="b.avi"), "1 of the 1 files it names do not exist"),
    "two of a name": (
        lambda d: (d["videos"].append({**d["videos"][0], "id": 1}), d["images"][0].update(video_id=1)),
        "two videos have the name 'a'",
    ),
}


@pytest.mark.parametrize("name", BAD_DOCUMENTS)
def test_what_cannot_be_converted_leaves_nothing(tmp_path, name):
    document = make_document(tmp_path)
    spoil, message = BAD_DOCUMENTS[name]
    spoil(document)
    (tmp_path / "set.json").write_text(json.dumps(document))
    with pytest.raises(DatasetError, match=f"set.json: .*{message}"):
        coco_to_official(str(tmp_path / "set.json"), str(tmp_path), str(tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_videos_are_no_images(tmp_path):
    (tmp_path / "set.json").write_text(json.dumps(make_document(tmp_path)))
    with pytest.raises(DatasetError, match="video 'a' is more than frame 0"):
        coco_to_official(str(tmp_path / "set.json"), str(tmp_path), str(tmp_path / "new"), kind="DET", part="train")


def test_nothing_is_overwritten(full_tree):
    official_to_coco("imagenet_vid_val", str(full_tree.root), str(full_tree.root / "set.json"))
    with pytest.raises(DatasetError, match="Annotations/VID/val: exists already"):
        coco_to_official(str(full_tree.root / "set.json"), str(full_tree.root), str(full_tree.root))


def test_unusable_xml_is_named(full_tree):
    path = full_tree.xml("VID", "val/ILSVRC2015_val_00000000/000001")
    path.write_text("hello")
    with pytest.raises(DatasetError, match=f"1 XML files cannot be used, the first: {path}: is not valid XML"):
        official_to_coco("imagenet_vid_val", str(full_tree.root), str(full_tree.root / "set.json"))
    assert not (full_tree.root / "set.json").exists()


def test_command(full_tree, tmp_path, capsys):
    def call(*words) -> None:
        assert main(list(map(str, words))) == 0

    call("to-coco", "imagenet_vid_val", full_tree.root / "set.json")
    call("to-official", full_tree.root / "set.json", tmp_path / "new")
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"{full_tree.root}/set.json: 2 videos, 8 frames, 9 boxes",
        f"{tmp_path}/new: 2 videos, 8 frames",
    ]


def test_an_endless_number_is_not_quoted_in_full(tmp_path):
    (tmp_path / "a.xml").write_text(f"<annotation><size><width>{'9' * 5000}</width></size></annotation>")
    with pytest.raises(DatasetError, match="a.xml: <width> is .{,120}$"):
        read_xml(str(tmp_path / "a.xml"))
