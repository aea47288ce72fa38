from __future__ import annotations

import copy
import json

import pytest
from detectron2.structures import BoxMode
from eventful_vitdet.data import ReadRules, load_coco_vid, split_sequences
from eventful_vitdet.data.coco_vid import parse_coco_vid, regular_step
from eventful_vitdet.errors import DatasetError

from .conftest import grey_frame, make_document


def test_frames_are_ordered_by_video_then_frame(write_dataset):
    document = make_document({2: [3, 1, 2], 1: [0, 1]})
    frames = load_coco_vid(*write_dataset(document))
    assert [(f["video_id"], f["frame_id"]) for f in frames] == [(2, 1), (2, 2), (2, 3), (1, 0), (1, 1)]


def test_frame_dict(write_dataset):
    json_file, root = write_dataset(make_document({1: [4, 6]}))
    frame = load_coco_vid(json_file, root)[0]
    annotations = frame.pop("annotations")
    assert frame == {
        "file_name": f"{root}/videos/1.avi",
        "is_video_file": True,
        "video_id": 1,
        "frame_id": 4,
        "frame_step": 2,
        "image_id": 104,
        "height": 48,
        "width": 64,
    }
    assert annotations == [
        {
            "bbox": [5.0, 2.0, 10.0, 8.0],
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": 0,
            "instance_id": 5,
            "iscrowd": 0,
            "area": 80.0,
        }
    ]


def test_categories_become_contiguous_in_order_of_their_ids(write_dataset):
    document = make_document({1: [0], 2: [0]})
    document["categories"].reverse()
    data = parse_coco_vid(*write_dataset(document))
    assert (data.classes, data.category_ids) == (["cat", "dog"], [3, 7])
    assert [f["annotations"][0]["category_id"] for f in data.frames] == [0, 1]


def test_partial_list_delivers_exactly_the_listed_frames(write_dataset):
    document = make_document({1: [2, 9], 2: []})
    document["videos"][0]["num_frames"] = 3  # information only, even where it is wrong
    (run,) = (load_coco_vid(*write_dataset(document)),)
    assert [f["frame_id"] for f in run] == [2, 9]


def test_video_without_listed_frames_need_not_exist(write_dataset, tmp_path):
    json_file, root = write_dataset(make_document({1: [0], 2: []}))
    (tmp_path / "videos" / "2.avi").unlink()
    assert len(load_coco_vid(json_file, root)) == 1


def test_frame_folders(write_dataset, tmp_path):
    import cv2

    document = make_document({1: [0, 1]})
    for image in document["images"]:
        image["file_name"] = f"frames/{image['frame_id']:06d}.png"
        (tmp_path / "frames").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / image["file_name"]), grey_frame(image["frame_id"]))
    del document["videos"][0]["file_name"]
    path = tmp_path / "set.json"
    path.write_text(json.dumps(document))
    frames = load_coco_vid(str(path), str(tmp_path))
    assert [f["file_name"] for f in frames] == [f"{tmp_path}/frames/{i:06d}.png" for i in range(2)]
    assert not any(f["is_video_file"] for f in frames)


@pytest.mark.parametrize(
    "frame_ids, step",
    [([5], 1), ([0, 1, 2, 9], 1), ([0, 5, 10, 12, 17], 5), ([0, 2, 5], 2), ([0, 3, 5, 8, 10], 2)],
)
def test_regular_step_is_the_commonest_difference_and_the_smallest_on_ties(frame_ids, step):
    assert regular_step(frame_ids) == step


def test_split_sequences(write_dataset):
    document = make_document({1: [0, 2, 4, 8, 10, 11], 2: [4], 3: [5, 6]})
    runs = split_sequences(load_coco_vid(*write_dataset(document)))
    assert [[f["frame_id"] for f in run] for run in runs] == [[0, 2, 4], [8, 10, 11], [4], [5, 6]]


def write_again(json_file: str, document: dict, **options) -> None:
    with open(json_file, "w", **options) as file:
        json.dump(document, file)


def test_whole_numbers_may_be_written_as_floats(write_dataset):
    document = make_document({1: [0, 1], 2: [3]})
    json_file, root = write_dataset(document)
    expected = parse_coco_vid(json_file, root)
    for table, keys in {
        "categories": ["id"],
        "videos": ["id", "width", "height"],
        "images": ["id", "video_id", "frame_id"],
        "annotations": ["id", "image_id", "video_id", "category_id", "instance_id", "iscrowd"],
    }.items():
        for entry in document[table]:
            entry.update({key: float(entry[key]) for key in keys})
    write_again(json_file, document)
    found = parse_coco_vid(json_file, root)
    assert found == expected
    frame = found.frames[0]
    numbers = [frame[key] for key in ("image_id", "video_id", "frame_id", "width", "height")]
    numbers += [frame["annotations"][0][key] for key in ("iscrowd", "instance_id")]
    assert {type(number) for number in (*numbers, *found.category_ids, *found.video_names)} == {int}


@pytest.mark.parametrize("separator", ["\\", "/"])
def test_separators_of_windows(write_dataset, tmp_path, separator):
    document = make_document({1: [0, 1]})
    json_file, root = write_dataset(document)
    document["videos"][0]["file_name"] = separator.join(["videos", "1.avi"])
    write_again(json_file, document)
    assert load_coco_vid(json_file, root)[0]["file_name"] == f"{tmp_path}/videos/1.avi"
    (tmp_path / "frames" / "a").mkdir(parents=True)
    for image in document["images"]:
        image["file_name"] = separator.join(["frames", "a", f"{image['frame_id']}.png"])
        (tmp_path / "frames" / "a" / f"{image['frame_id']}.png").write_bytes(b"")
    write_again(json_file, document)
    assert [f["file_name"] for f in load_coco_vid(json_file, root)] == [f"{tmp_path}/frames/a/{i}.png" for i in (0, 1)]


def test_a_file_whose_name_has_a_backslash_on_linux(write_dataset, tmp_path):
    document = make_document({1: [0]})
    json_file, root = write_dataset(document)
    (tmp_path / "videos" / "1.avi").rename(tmp_path / "a\\b.avi")
    document["videos"][0]["file_name"] = "a\\b.avi"
    write_again(json_file, document)
    assert load_coco_vid(json_file, root)[0]["file_name"] == f"{tmp_path}/a\\b.avi"


def test_files_outside_of_the_root_need_a_key(write_dataset, tmp_path):
    document = make_document({1: [0], 2: [0]})
    json_file, root = write_dataset(document)
    (tmp_path / "inner").mkdir()
    document["videos"][0]["file_name"] = f"{tmp_path}/videos/1.avi"
    document["videos"][1]["file_name"] = "../videos/2.avi"
    write_again(json_file, document)
    with pytest.raises(DatasetError, match="image 100 names the file .*DATASETS.PATHS_OUTSIDE_ROOT True allows it"):
        load_coco_vid(json_file, f"{root}/inner")
    frames = load_coco_vid(json_file, f"{root}/inner", ReadRules(paths_outside_root=True))
    assert [f["file_name"] for f in frames] == [f"{root}/videos/1.avi", f"{root}/inner/../videos/2.avi"]


def test_names_with_dots_that_do_not_lead_out(write_dataset, tmp_path):
    document = make_document({1: [0]}, file_name="videos/a..b/..{}.avi")
    assert load_coco_vid(*write_dataset(document))[0]["file_name"] == f"{tmp_path}/videos/a..b/..1.avi"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks(write_dataset, encoding):
    document = make_document({1: [0]})
    document["categories"][0]["name"] = "Käfer"
    json_file, root = write_dataset(document)
    with open(json_file, "w", encoding=encoding) as file:
        json.dump(document, file, ensure_ascii=False)
    assert parse_coco_vid(json_file, root).classes == ["Käfer", "dog"]


def test_frame_numbers_from_1_are_noticed_and_can_be_shifted(write_dataset, caplog):
    document = make_document({1: [1, 2, 3], 2: [7, 8]})
    json_file, root = write_dataset(document)
    load_coco_vid(json_file, root)
    assert "no video begins with frame 0, and 1 of 2 begin with frame 1" in caplog.text
    assert "DATASETS.FIRST_FRAME_ID 1 shifts them" in caplog.text
    caplog.clear()
    frames = load_coco_vid(json_file, root, ReadRules(first_frame_id=1))
    assert [(f["video_id"], f["frame_id"]) for f in frames] == [(1, 0), (1, 1), (1, 2), (2, 6), (2, 7)]
    assert not caplog.records
    document["images"][0]["frame_id"] = 0
    write_again(json_file, document)
    with pytest.raises(DatasetError, match=r"image 101 has frame_id 0; .* 1 or larger \(DATASETS.FIRST_FRAME_ID"):
        load_coco_vid(json_file, root, ReadRules(first_frame_id=1))


@pytest.mark.parametrize("numbers", [{1: [0, 1], 2: [1, 2]}, {1: [4, 5, 6]}, {1: [2, 12]}])
def test_no_hint_where_frames_count_from_0_or_nobody_knows(write_dataset, caplog, numbers):
    load_coco_vid(*write_dataset(make_document(numbers)))
    assert not caplog.records


def test_numbers_of_image_files_are_not_shifted(write_dataset, tmp_path, caplog):
    document = make_document({1: [1, 2]})
    json_file, root = write_dataset(document)
    for image in document["images"]:
        image["file_name"] = f"{image['id']}.png"
        (tmp_path / image["file_name"]).write_bytes(b"")
    write_again(json_file, document)
    for rules in (ReadRules(), ReadRules(first_frame_id=1)):
        assert [f["frame_id"] for f in load_coco_vid(json_file, root, rules)] == [1, 2]
    assert not caplog.records


def test_the_message_about_plain_coco_names_the_converter(write_dataset):
    document = make_document({1: [0]})
    json_file, root = write_dataset(document)
    del document["videos"]
    write_again(json_file, document)
    with pytest.raises(DatasetError, match="'videos' is missing .*plain COCO: `eventful-vitdet convert-coco`"):
        load_coco_vid(json_file, root)


def test_overshoot_of_up_to_a_pixel_is_clipped(write_dataset):
    document = make_document({1: [0]})
    document["annotations"][0]["bbox"] = [-0.5, 40, 64.75, 8.9]
    frame = load_coco_vid(*write_dataset(document))[0]
    assert frame["annotations"][0]["bbox"] == [0.0, 40.0, 64.0, 8.0]


def change(table: str, position: int, **values):
    def apply(document: dict) -> None:
        document[table][position].update(values)

    return apply


def drop(table: str, position: int, key: str):
    def apply(document: dict) -> None:
        del document[table][position][key]

    return apply


def duplicate(table: str):
    def apply(document: dict) -> None:
        document[table].append(copy.deepcopy(document[table][0]))

    return apply


def replace(table: str, value):
    def apply(document: dict) -> None:
        document[table] = value

    return apply


def repeat_frame(document: dict) -> None:
    document["images"].append({"id": 999, "video_id": 1, "frame_id": 0})


def mix_layouts(document: dict) -> None:
    document["images"][0]["file_name"] = "a.png"


BAD_DOCUMENTS = {
    "no table": (lambda d: d.pop("videos"), "key 'videos' is missing"),
    "table is no list": (replace("images", {}), "'images' must be a list, found dict"),
    "entry is no object": (replace("videos", [1]), r"videos\[0\] must be an object"),
    "no images": (replace("images", []), "'images' is empty"),
    "no categories": (replace("categories", []), "'categories' is empty"),
    "image without video": (drop("images", 1, "video_id"), r"images\[1\] has no key 'video_id'"),
    "annotation without box": (drop("annotations", 0, "bbox"), r"annotations\[0\] has no key 'bbox'"),
    "id is text": (change("images", 0, id="x"), r"images\[0\] has id 'x'"),
    "repeated image": (duplicate("images"), "id 100 occurs more than once in 'images'"),
    "repeated annotation": (duplicate("annotations"), "id 100 occurs more than once in 'annotations'"),
    "repeated video": (duplicate("videos"), "id 1 occurs more than once in 'videos'"),
    "repeated category": (duplicate("categories"), "id 3 occurs more than once in 'categories'"),
    "repeated frame": (repeat_frame, "frame_id 0 of video 1 is listed twice, as images 100 and 999"),
    "unknown video": (
        change("images", 0, video_id=44),
        "image 100 has video_id 44, which 'videos' does not list",
    ),
    "unknown image": (change("annotations", 0, image_id=44), "annotation 100 has image_id 44"),
    "unknown category": (change("annotations", 0, category_id=44), "annotation 100 has category_id 44"),
    "other video": (change("annotations", 0, video_id=44), "annotation 100 has video_id 44, but its image"),
    "negative frame": (change("images", 0, frame_id=-1), "image 100 has frame_id -1"),
    "fractional frame": (change("images", 0, frame_id=0.5), "image 100 has frame_id 0.5"),
    "no width": (drop("videos", 0, "width"), "image 100 has width None"),
    "no file": (drop("videos", 0, "file_name"), "image 100 has no usable 'file_name'"),
    "NUL in a name": (change("videos", 0, file_name="a\0.avi"), r"image 100 has no usable .* \(found 'a\\x00.avi'\)"),
    "NUL in an image's name": (change("images", 0, file_name="\0.png"), r"image 100 has no usable .*'\\x00.png'"),
    "half a letter in a name": (change("images", 0, file_name="\ud800.png"), "image 100 has no usable 'file_name'"),
    "mixed layouts": (mix_layouts, "some images of video 1 have a 'file_name' and some have not"),
    "three numbers": (change("annotations", 0, bbox=[1, 2, 3]), "expected four finite numbers"),
    "NaN in box": (change("annotations", 0, bbox=[1, float("nan"), 3, 3]), "expected four finite numbers"),
    "box without end": (change("annotations", 0, bbox=[1, 2, 10**400, 3]), "expected four finite numbers"),
    "box of 1e300": (change("annotations", 0, bbox=[1, 2, 1e300, 3]), "expected four finite numbers"),
    "area without end": (change("annotations", 0, area=10**400), "expected a number of pixels"),
    "no area": (change("annotations", 0, area=None), "area None; expected a number of pixels"),
    "image id without end": (change("images", 0, id=10**30), r"images\[0\] has id 1000.*; expected a whole"),
    "video id without end": (change("videos", 0, id=10**30), r"videos\[0\] has id 1000.*; expected a whole"),
    "class id without end": (change("categories", 0, id=10**20), r"categories\[0\] has id 1000.*; expected a whole"),
    "annotation id of 400 digits": (change("annotations", 0, id=10**400), r"annotations\[0\] has id 1000.{,90}$"),
    "id is true": (change("images", 0, id=True), r"images\[0\] has id True; expected a whole number"),
    "id is infinite": (change("images", 0, id=float("inf")), r"images\[0\] has id inf; expected a whole number"),
    "fractional id": (change("annotations", 0, id=1.5), r"annotations\[0\] has id 1.5; expected a whole number"),
    "frame without end": (change("images", 0, frame_id=10**30), "image 100 has frame_id 1000.*; expected a whole"),
    "width without end": (change("images", 0, width=10**400), "image 100 has width 1000.{,150}$"),
    "width of a disk": (change("images", 0, width=10**9), "image 100 has width 1000000000; .* a positive integer"),
    "fractional height": (change("images", 0, height=47.5), "image 100 has height 47.5; .* a positive integer"),
    "track without end": (change("annotations", 0, instance_id=10**30), "annotation 100 has instance_id 1000"),
    "track is a list": (change("annotations", 0, instance_id=[1]), r"annotation 100 has instance_id \[1\]"),
    "unhashable owner": (change("annotations", 0, image_id={}), "annotation 100 has image_id {}, which 'images'"),
    "flag without end": (change("annotations", 0, iscrowd=10**400), "annotation 100 has iscrowd 1000.{,80}$"),
    "class name of two lines": (change("categories", 0, name="a\nb"), r"has the name 'a\\nb'; expected text"),
    "class name with half a letter": (change("categories", 0, name="\ud800"), "has the name .*; expected text"),
    "endless class name": (change("categories", 0, name="x" * 5000), "has the name .{,120}; expected text$"),
    "file name of two lines": (change("videos", 0, name=None, file_name="a\nb"), r"video 1 has the name 'a\\nb'; exp"),
    "video name is a list": (change("videos", 0, name=[1]), r"video 1 has the name \[1\]; expected text"),
    "stored is text": (replace("images_as_stored", "false"), "images_as_stored is 'false'; expected true or false"),
    "absolute file": (change("videos", 0, file_name="/etc/passwd"), "image 100 names the file '/etc/passwd'"),
    "file above": (change("videos", 0, file_name="videos/../../x.avi"), "which is no path below the data set's folder"),
    "file above, in Windows' way": (change("images", 0, file_name="..\\x.png"), "image 100 names the file"),
    "drive of Windows": (change("images", 0, file_name="C:\\x.png"), "image 100 names the file"),
    "share of Windows": (change("images", 0, file_name="\\\\host\\x.png"), "image 100 names the file"),
    "repeated class name": (change("categories", 1, name="cat"), "2 categories have the name 'cat'"),
    "class name is a number": (change("categories", 0, name=5), "a category has the name 5; expected text"),
    "no class name": (change("categories", 0, name=""), "a category has the name ''; expected text"),
    "bad crowd flag": (change("annotations", 0, iscrowd=2), "iscrowd 2"),
    "bad area": (change("annotations", 0, area=-1), "area -1"),
    "absent file": (change("videos", 0, file_name="videos/gone.avi"), "1 of the 1 files .*videos/gone.avi"),
}


@pytest.mark.parametrize("name", BAD_DOCUMENTS)
def test_bad_document_is_refused_by_name(write_dataset, tmp_path, name):
    spoil, message = BAD_DOCUMENTS[name]
    document = make_document({1: [0, 1]})
    json_file, root = write_dataset(document)
    spoil(document)
    (tmp_path / "annotations" / "set.json").write_text(json.dumps(document))
    with pytest.raises(DatasetError, match=message) as caught:
        load_coco_vid(json_file, root)
    assert json_file in str(caught.value)


def test_absent_files_are_named_up_to_ten(write_dataset, tmp_path):
    document = make_document({v: [0] for v in range(12)})
    json_file, root = write_dataset(document, length=1)
    for video in document["videos"]:
        (tmp_path / video["file_name"]).unlink()
    with pytest.raises(DatasetError, match="12 of the 12 files") as caught:
        load_coco_vid(json_file, root)
    assert str(caught.value).count(".avi") == 10
    assert str(caught.value).endswith("and 2 more")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is an empty file"),
        (b"{", "is not valid JSON"),
        (b"\x00" * 9, "is a file that begins with nothing but zero bytes"),
        (b'"text"', "expected a JSON object with the keys"),
        (b"[]", "expected a JSON object with the keys"),
        (b'{"images": ' + b"[" * 100_000, "is not valid JSON"),
        (b'{"id": ' + b"9" * 5000 + b"}", "is not valid JSON .Exceeds the limit"),
        (b'{"name": "\xff"}', "is not valid JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d", "is a Git LFS pointer.*git lfs pull"),
        (b"\x1f\x8b\x08\x00", "is a gzip file"),
        (b" <!DOCTYPE html><html>", "is an HTML page"),
    ],
)
def test_not_json_or_not_an_object(tmp_path, content, message):
    path = tmp_path / "set.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=f"^{path}: {message}"):
        load_coco_vid(str(path), str(tmp_path))


def test_absent_annotation_file(tmp_path):
    with pytest.raises(DatasetError, match="gone.json: cannot read the annotation file"):
        load_coco_vid(str(tmp_path / "gone.json"), str(tmp_path))


def test_flags_are_kept_where_they_are_given(write_dataset):
    document = make_document({1: [0, 1]})
    document["annotations"][0].update(occluded=True, generated=0)
    first, second = load_coco_vid(*write_dataset(document))
    assert (first["annotations"][0]["occluded"], first["annotations"][0]["generated"]) == (1, 0)
    assert second["annotations"][0].keys().isdisjoint({"occluded", "generated"})
    document["annotations"][0]["generated"] = "yes"
    with pytest.raises(DatasetError, match="annotation 100 has generated 'yes'; expected 0 or 1"):
        load_coco_vid(*write_dataset(document))
