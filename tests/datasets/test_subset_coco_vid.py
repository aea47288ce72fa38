"""Parts of a COCO-VID file."""

import json
import subprocess
import sys

import pytest


@pytest.fixture
def source(tmp_path):
    images = [{"id": 10 * v + f, "video_id": v, "frame_id": f} for v in (1, 2) for f in range(6 if v == 1 else 3)]
    annotations = [{"id": i, "image_id": image["id"], "bbox": [0, 0, 1, 1]} for i, image in enumerate(images)]
    data = {"videos": [{"id": 1}, {"id": 2}], "images": images, "annotations": annotations, "categories": [{"id": 1}]}
    path = tmp_path / "all.json"
    path.write_text(json.dumps(data))
    return path


def run(repository, *words):
    script = str(repository / "datasets" / "subset_coco_vid.py")
    return subprocess.run([sys.executable, script, *map(str, words)], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--start", 1, "--frames", 3], [11, 12, 13, 21, 22]),
        (["--start", 1, "--frames", 4, "--every", 2], [11, 13, 21]),
        (["--start", 4], [14, 15]),
    ],
)
def test_frames_annotations_and_videos(repository, source, options, expected):
    target = source.with_name("part.json")
    assert run(repository, source, target, *options).returncode == 0
    part = json.loads(target.read_text())
    assert [image["id"] for image in part["images"]] == expected
    assert [annotation["image_id"] for annotation in part["annotations"]] == expected
    assert [video["id"] for video in part["videos"]] == ([1] if options == ["--start", 4] else [1, 2])
    assert part["categories"] == [{"id": 1}]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--videos", "bird_01"], [1]),
        (["--videos", "bird_*"], [1, 2]),
        (["--except", "bird_*"], [3]),
        (["--videos", "bird_*", "--except", "bird_01", "3"], [2]),
        (["--videos", "3"], [3]),  # a video without a name goes by its id
    ],
)
def test_videos_by_name(repository, source, options, expected):
    data = json.loads(source.read_text())
    data["videos"] = [{"id": 1, "name": "bird_01"}, {"id": 2, "name": "bird_02"}, {"id": 3}]
    data["images"] += [{"id": 30, "video_id": 3, "frame_id": 0}]
    source.write_text(json.dumps(data))
    target = source.with_name("part.json")
    assert run(repository, source, target, *options).returncode == 0
    part = json.loads(target.read_text())
    assert [video["id"] for video in part["videos"]] == expected
    assert sorted({image["video_id"] for image in part["images"]}) == expected


def test_a_byte_order_mark(repository, source):
    source.write_bytes(b"\xef\xbb\xbf" + source.read_bytes())
    assert run(repository, source, source.with_name("part.json")).returncode == 0
    assert len(json.loads(source.with_name("part.json").read_text())["images"]) == 9


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no COCO-VID file (Expecting"),
        ('{"videos": []}', "key 'images' is missing"),
        ('{"videos": ["a"]}', "is no COCO-VID file"),
        ("[1]", "is no COCO-VID"),
    ],
)
def test_other_files(repository, source, content, message):
    source.write_text(content)
    done = run(repository, source, source.with_name("part.json"))
    assert done.returncode == 1 and message in done.stderr and done.stderr.startswith(f"error: {source}: ")
    assert done.stderr.count("\n") == 1


def test_nothing_left_is_an_error(repository, source):
    done = run(repository, source, source.with_name("part.json"), "--start", 99)
    assert done.returncode == 1 and "no video has frames from 99" in done.stderr
    assert not source.with_name("part.json").exists()
