"""ImageNet VID and DET from the folders of ILSVRC2015."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from eventful_vitdet.config import add_eventful_vitdet_config
from eventful_vitdet.data import load_frames, parallel_map, split_sequences
from eventful_vitdet.data.coco_vid import group_by_video
from eventful_vitdet.data.imagenet_vid import index as index_module
from eventful_vitdet.data.imagenet_vid.official import OFFICIAL_SPLITS
from eventful_vitdet.data.listed_frames import iterate_listed_frames, read_listed_frame
from eventful_vitdet.errors import DatasetError, VideoReadError
from eventful_vitdet.evaluation.targets import load_test_set
from PIL import Image

from .conftest import HEIGHT, WIDTH, xml_object, xml_text

FIRST = "val/ILSVRC2015_val_00000000"
SECOND = "val/ILSVRC2015_val_00007010"


def test_validation_frames(full_tree):
    frames = DatasetCatalog.get("imagenet_vid_val")
    assert [(f["video_id"], f["frame_id"], f["image_id"]) for f in frames] == [
        *((1, i, i + 1) for i in range(5)),
        *((2, i, i + 6) for i in range(3)),
    ]
    frame = {**frames[1]}
    annotations = frame.pop("annotations")
    assert frame == {
        "file_name": str(full_tree.image("VID", f"{FIRST}/000001")),
        "is_video_file": False,
        "video_id": 1,
        "frame_id": 1,
        "frame_step": 1,
        "image_id": 2,
        "width": WIDTH,
        "height": HEIGHT,
        "as_stored": True,
    }
    common = {"bbox_mode": BoxMode.XYWH_ABS, "iscrowd": 0}
    car = {"bbox": [1, 4, 10, 8], "category_id": 6, "instance_id": 0, "area": 80, "occluded": 0, "generated": 1}
    dog = {"bbox": [5, 10, 35, 26], "category_id": 8, "instance_id": 1, "area": 910, "occluded": 1, "generated": 1}
    assert annotations == [{**common, **car}, {**common, **dog}]
    assert frames[4]["annotations"] == []
    assert [image.shape for _, image in iterate_listed_frames(group_by_video(frames)[1])] == [(HEIGHT, WIDTH, 3)] * 3
    metadata = MetadataCatalog.get("imagenet_vid_val")
    assert metadata.video_names == {1: FIRST, 2: SECOND}
    assert (metadata.evaluator_type, metadata.thing_dataset_id_to_contiguous_id[30]) == ("coco_vid", 29)


def test_training_list_of_some_frames(full_tree):
    frames = DatasetCatalog.get("imagenet_vid_train")
    numbers = [(f["video_id"], f["frame_id"], f["frame_step"], f["image_id"]) for f in frames]
    assert numbers == [(1, 1, 2, 1), (1, 3, 2, 2), (1, 5, 2, 3), (2, 2, 1, 4)]
    assert len(split_sequences(frames)) == 2
    everything = DatasetCatalog.get("imagenet_vid_train_all")
    assert [len(video) for video in group_by_video(everything)] == [6, 4]


def test_images_show_other_classes_too(full_tree, caplog):
    with caplog.at_level("INFO", "eventful_vitdet"):
        frames = DatasetCatalog.get("imagenet_det_30_train")
    assert [[a["category_id"] for a in f["annotations"]] for f in frames] == [[8], []]
    assert [(f["video_id"], f["frame_id"]) for f in frames] == [(1, 0), (2, 0)]
    assert frames[0]["annotations"][0].keys().isdisjoint({"occluded", "generated"})
    assert frames[0]["annotations"][0]["instance_id"] == -1
    assert "left out 2 objects of 1 other classes" in caplog.text
    assert all(read_listed_frame(frame).shape == (HEIGHT, WIDTH, 3) for frame in frames)


@pytest.mark.parametrize("folder", ["ImageSets/VID", "ImageSets", "Lists"])
@pytest.mark.parametrize("prefix", ["val/", ""])
def test_lists_of_other_distributions(full_tree, folder, prefix):
    expected = DatasetCatalog.get("imagenet_vid_val")
    shutil.rmtree(full_tree.root / "ImageSets")
    names = [f["file_name"].split("Data/VID/val/")[1][: -len(".JPEG")] for f in expected]
    full_tree.write_list("VID_val_frames.txt", *(f"{prefix}{n} {i + 1}" for i, n in enumerate(names)), folder=folder)
    assert DatasetCatalog.get("imagenet_vid_val") == expected
    (full_tree.root / folder / "VID_val_frames.txt").unlink()
    full_tree.write_list("val.txt", *(f"{prefix}{n} {i + 1}" for i, n in enumerate(names)), folder=folder)
    assert DatasetCatalog.get("imagenet_vid_val") == expected
    (full_tree.root / folder / "val.txt").unlink()
    rows = [f"{prefix}{n.split('/')[0]} {i + 1} {int(n.split('/')[1])} 9" for i, n in enumerate(names)]
    full_tree.write_list("VID_val_frames.txt", *rows, folder=folder)
    assert DatasetCatalog.get("imagenet_vid_val") == expected


def test_the_submission_has_the_frame_numbers_of_the_list(full_tree):
    """Also of a part of the official list."""
    full_tree.write_list("VID_val_videos.txt", f"{SECOND} 6 0 3")
    cfg = get_cfg()
    add_eventful_vitdet_config(cfg)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 30
    test_set = load_test_set(cfg, "imagenet_vid_val")
    assert [test_set.frame_numbers[frame["image_id"]] for frame in test_set.frames] == [6, 7, 8]


def test_boxes_are_cut_off_at_the_edges(full_tree):
    full_tree.xml("VID", f"{FIRST}/000000").write_text(
        xml_text(xml_object("car", (-3, 4, 60, 12)), xml_object("dog", (0, 0, WIDTH, HEIGHT)))
    )
    annotations = DatasetCatalog.get("imagenet_vid_val")[0]["annotations"]
    assert [a["bbox"] for a in annotations] == [[0, 4, WIDTH, 8], [0, 0, WIDTH, HEIGHT]]


BAD_XML = {
    "no size": (xml_text(size=""), "gives no size of the image"),
    "size of zero": (xml_text(size="<size><width>0</width><height>3</height></size>"), "gives the size 0 x 3"),
    "size is text": (xml_text(size="<size><width>a</width><height>3</height></size>"), "<width> is 'a'"),
    "no width": (xml_text(xml_object("car", (5, 5, 5, 9))), r"a box of no area \(xmin 5, ymin 5, xmax 5, ymax 9\)"),
    "negative height": (xml_text(xml_object("car", (5, 9, 8, 5))), "a box of no area"),
    "outside": (xml_text(xml_object("car", (50, 5, 60, 9))), "a box outside of its 48 x 36 image"),
    "unknown class": (xml_text(xml_object("n99999999", (1, 1, 9, 9))), "class 'n99999999'"),
    "not finite": (xml_text(xml_object("car", (1, "nan", 9, 9))), "<ymin> of a box is 'nan'"),
    "no number": (xml_text(xml_object("car", (1, "", 9, 9))), "<ymin> of a box is ''"),
    "number without end": (xml_text(xml_object("car", (1, "9" * 5000, 9, 9))), "<ymin> of a box is '9999"),
    "track is text": (xml_text(xml_object("car", (1, 1, 9, 9), track="x")), "<trackid> is 'x'"),
    "flag": (xml_text(xml_object("car", (1, 1, 9, 9), occluded=7)), "flags other than 0 and 1"),
    "no box": (xml_text("<object><name>n02958343</name></object>"), "without <bndbox>"),
    "no name": (xml_text("<object><bndbox/></object>"), "without <name>"),
    "no XML": ("hello", "is not valid XML"),
    "nothing": ("", "is not valid XML"),
    "cut off": (xml_text()[:-20], "is not valid XML"),
    "encoding": ('<?xml version="1.0" encoding="no-such"?><a/>', "is not valid XML"),
}


@pytest.mark.parametrize("name", BAD_XML)
def test_bad_xml_is_named(full_tree, name):
    content, message = BAD_XML[name]
    path = full_tree.xml("VID", f"{FIRST}/000002")
    path.write_text(content)
    with pytest.raises(DatasetError, match=f"imagenet_vid_val.*1 of its videos.*{path}: .*{message}"):
        DatasetCatalog.get("imagenet_vid_val")
    frames, (bad,) = load_frames("imagenet_vid_val", "skip")
    assert {f["video_id"] for f in frames} == {2} and len(frames) == 3
    assert (bad.video_id, bad.name, bad.file_name) == (1, FIRST, str(path))
    assert bad.reason.startswith(str(path))


def test_a_defect_is_remembered_when_the_folder_moves(full_tree, tmp_path, monkeypatch):
    full_tree.xml("VID", f"{FIRST}/000002").write_text("hello")
    load_frames("imagenet_vid_val", "skip")
    (tmp_path / "elsewhere").mkdir()
    full_tree.root.rename(tmp_path / "elsewhere" / "ILSVRC2015")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(index_module, "read_xml", None)  # read from the cache
    _, (bad,) = load_frames("imagenet_vid_val", "skip")
    moved = f"{tmp_path}/elsewhere/ILSVRC2015/Annotations/VID/{FIRST}/000002.xml"
    assert bad.file_name == moved and bad.reason.startswith(f"{moved}: is not valid XML")


def test_absent_files_are_named(full_tree, caplog):
    full_tree.image("VID", f"{FIRST}/000003").unlink()
    full_tree.image("VID", f"{FIRST}/000004").unlink()
    full_tree.xml("VID", f"{SECOND}/000001").unlink()
    with pytest.raises(DatasetError, match=f"2 of its videos.*{FIRST}/000003.JPEG: does not exist.*VID_val_videos.txt"):
        DatasetCatalog.get("imagenet_vid_val")
    with pytest.raises(DatasetError, match="not one video can be used.*000003.JPEG: does not exist"):
        load_frames("imagenet_vid_val", "skip")
    assert caplog.text.count("skipping video") == 2
    shutil.rmtree(full_tree.root / "Data" / "VID" / FIRST)
    with pytest.raises(DatasetError, match=f"{FIRST}/000000.JPEG: .*and 4 more defects of this video"):
        DatasetCatalog.get("imagenet_vid_val")
    shutil.rmtree(full_tree.root / "Data")
    with pytest.raises(DatasetError, match="Data/VID: does not exist; expected the images"):
        DatasetCatalog.get("imagenet_vid_val")


def test_a_link_that_leads_nowhere_and_a_folder_are_no_frames(full_tree, tmp_path):
    first, second = (full_tree.image("VID", f"{FIRST}/00000{number}") for number in (0, 1))
    first.rename(tmp_path / "moved.JPEG")
    first.symlink_to(tmp_path / "moved.JPEG")
    DatasetCatalog.get("imagenet_vid_val")
    first.unlink()
    first.symlink_to(first)
    second.unlink()
    second.mkdir()
    with pytest.raises(DatasetError, match=f"1 of its videos.*{first}: does not exist.*1 more defects"):
        DatasetCatalog.get("imagenet_vid_val")


def test_empty_videos(full_tree):
    full_tree.write_list("VID_val_videos.txt", f"{FIRST} 1 0 5", f"{SECOND} 6 0 0")
    with pytest.raises(DatasetError, match=f"VID_val_videos.txt: lists no frame of {SECOND}"):
        DatasetCatalog.get("imagenet_vid_val")
    assert len(load_frames("imagenet_vid_val", "skip")[0]) == 5
    empty = full_tree.root / "Annotations" / "VID" / "train" / "ILSVRC2015_VID_train_0001" / "ILSVRC2015_train_9"
    empty.mkdir(parents=True)
    with pytest.raises(DatasetError, match="lists no frame of train/.*/ILSVRC2015_train_9"):
        DatasetCatalog.get("imagenet_vid_train_all")


def test_frame_behind_the_end(full_tree):
    full_tree.write_list("VID_val_videos.txt", f"{FIRST} 1 0 6")
    with pytest.raises(DatasetError, match=f"{FIRST}/000005.xml: cannot be read .*No such file"):
        DatasetCatalog.get("imagenet_vid_val")


BAD_LISTS = {
    "three columns": (f"{FIRST} 1 2", "line 1: .*in none of the known formats"),
    "no number": (f"{FIRST} 1 x 5", "line 1: expected whole numbers behind the path"),
    "negative": (f"{FIRST} 1 -1 5", "line 1: expected whole numbers behind the path"),
    "beyond 64 bits": (f"{FIRST} {10**20} 0 5", "line 1: expected whole numbers behind the path"),
    "five thousand digits": (f"{FIRST} 1 {'9' * 5000} 5", "line 1: expected whole numbers .{,120}$"),
    "drive of Windows": ("D:\\val\\x 1 0 5", "line 1: .*is no path below"),
    "zeros, as a crash leaves them": ("val/x\0\0 1 0 5", "line 1: .*is no path below"),
    "above, in Windows' way": ("val\\..\\..\\x 1 0 5", "line 1: .*is no path below"),
    "twice": (f"{FIRST} 1 0 5\n\n{FIRST} 6 3 1", f"lists frame 3 of {FIRST} twice"),
    "absolute": ("/etc/passwd 1 0 5", "line 1: '/etc/passwd' is no path below"),
    "above": ("val/../../x 1 0 5", "line 1: .*is no path below"),
    "endless": (f"{FIRST} 1 0 {10**12}", "line 1: a video of 1000000000000 frames"),
    "empty": ("\n", "lists nothing"),
}


@pytest.mark.parametrize("name", BAD_LISTS)
def test_bad_list_is_refused(full_tree, name):
    content, message = BAD_LISTS[name]
    path = full_tree.write_list("VID_val_videos.txt", content)
    with pytest.raises(DatasetError, match=f"{path}: {message}"):
        DatasetCatalog.get("imagenet_vid_val")


def test_a_list_with_the_separators_of_windows(full_tree):
    expected = DatasetCatalog.get("imagenet_vid_val")
    path = full_tree.root / "ImageSets" / "VID" / "VID_val_videos.txt"
    path.write_text(path.read_text().replace("/", "\\"))
    assert "\\" in path.read_text()
    assert DatasetCatalog.get("imagenet_vid_val") == expected


def test_hidden_files_and_folders_are_no_annotations(full_tree):
    """As macOS leaves beside every file on a disk of another system."""
    expected = DatasetCatalog.get("imagenet_vid_train_all")
    folder = next((full_tree.root / "Annotations" / "VID" / "train").rglob("000000.xml")).parent
    (folder / "._000000.xml").write_bytes(bytes(range(128, 200)))
    (folder.parent / ".Trashes").mkdir()
    (folder.parent / ".Trashes" / "000000.xml").write_text("no XML")
    assert DatasetCatalog.get("imagenet_vid_train_all") == expected


@pytest.mark.parametrize("name", OFFICIAL_SPLITS)
def test_absent_folder_and_absent_list(tree, name):
    with pytest.raises(DatasetError, match=f"{tree.root}/Annotations/.*set DETECTRON2_DATASETS to the folder"):
        DatasetCatalog.get(name)
    for kind in ("VID", "DET"):
        (tree.root / "Annotations" / kind).mkdir(parents=True)
    with pytest.raises(DatasetError, match="has no list for|has no annotations"):
        DatasetCatalog.get(name)


def test_truncated_jpeg_in_the_middle_of_a_video(full_tree):
    frames = DatasetCatalog.get("imagenet_vid_val")[:5]
    path = full_tree.image("VID", f"{FIRST}/000002")
    whole = path.read_bytes()
    # Cut off; without its end marker alone; and with its length kept, as an interrupted download leaves it.
    for content in (whole[:400], whole[:-2], whole[:400] + bytes(len(whole) - 400), b""):
        path.write_bytes(content)
        read = []
        with pytest.raises(VideoReadError, match=f"{path}: cannot be read as an image") as caught:
            for frame, _ in iterate_listed_frames(frames):
                read.append(frame["frame_id"])
        assert read == [0, 1]
        error = caught.value
        assert (error.file_name, error.video_id, error.frame_id) == (str(path), 1, 2)


def test_frame_of_another_size_than_its_xml(full_tree):
    path = full_tree.xml("VID", f"{FIRST}/000001")
    path.write_text(path.read_text().replace(f"<width>{WIDTH}", "<width>50"))
    with pytest.raises(VideoReadError, match="frame 1 is 48 x 36 pixels, but .* lists 50 x 36") as caught:
        list(iterate_listed_frames(DatasetCatalog.get("imagenet_vid_val")[:5]))
    assert caught.value.video_id == 1


def test_orientation_in_the_image_file_is_ignored(full_tree):
    """Boxes and sizes of ImageNet are those of the stored pixels."""
    path = full_tree.image("DET", "train/ILSVRC2013_train/n02084071/n02084071_10")
    pixels = np.asarray(Image.open(path))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(pixels).save(path, format="PNG", exif=exif)
    frame = DatasetCatalog.get("imagenet_det_30_train")[0]
    assert np.array_equal(read_listed_frame(frame)[:, :, ::-1], pixels)
    upright = {**frame, "as_stored": False, "width": HEIGHT, "height": WIDTH}
    assert read_listed_frame(upright).shape == (WIDTH, HEIGHT, 3)


def test_several_processes_read_the_same(full_tree, monkeypatch):
    expected = DatasetCatalog.get("imagenet_vid_train_all")
    shutil.rmtree(full_tree.root / "cache")
    monkeypatch.setattr(index_module, "MIN_FILES_FOR_PROCESSES", 1)
    monkeypatch.setattr(index_module, "FILES_PER_TASK", 3)
    monkeypatch.setattr(parallel_map, "usable_processes", lambda: 3)
    assert DatasetCatalog.get("imagenet_vid_train_all") == expected
    assert json.dumps(expected)  # numbers of Python, not of numpy
