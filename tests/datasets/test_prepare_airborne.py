"""airborne_vid and airborne_ir from their source: labels, identities, splits, and what is said about mistakes."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "datasets"
sys.path.insert(0, str(SCRIPTS))

from airborne_labels import read_labels, read_row  # noqa: E402

FIELDS = ("Time", "AIRPLANE", "BIRD", "DRONE", "HELICOPTER")


def row(**boxes):
    record = np.empty(1, dtype=[(name, object) for name in FIELDS])[0]
    for name in FIELDS:
        record[name] = np.array(boxes.get(name, np.zeros((0, 0))))
    return record


def test_matlab_counts_from_one_and_boxes_end_at_the_edges():
    found = read_row(row(BIRD=[[1, 1, 10, 5.126], [630, 500, 30, 30]], AIRPLANE=[[0.5, 9, 4, 4]]), 640, 512)
    assert found == [
        ("airplane", (0.0, 8.0, 3.5, 4.0)),
        ("bird", (0.0, 0.0, 10.0, 5.13)),
        ("bird", (629.0, 499.0, 11.0, 13.0)),
    ]
    assert read_row(row(DRONE=[[700, 10, 5, 5]]), 640, 512) == []


def test_boxes_of_later_versions_of_matlab():
    boxes = np.empty((1, 1), dtype=[("Position", object), ("LabelUIDs", object)])
    boxes["Position"][0, 0] = np.array([[11.0, 21, 5, 6]])
    assert read_row(row(DRONE=boxes), 640, 512) == [("drone", (10.0, 20.0, 5.0, 6.0))]


def test_objects_keep_their_number_over_a_short_gap_and_where_they_pass():
    link_boxes = pytest.importorskip("airborne_tracks", reason="SciPy is not installed").link_boxes

    def bird(x, y=100.0):
        return ("bird", (x, y, 10.0, 10.0))

    # The second one comes first in the later frames; in the third, one is not seen.
    assert link_boxes([[bird(0), bird(40)], [bird(42), bird(3)], [bird(44)], [bird(46), bird(9)]]) == [
        [0, 1],
        [1, 0],
        [1],
        [1, 0],
    ]
    assert link_boxes([[bird(0)], [], [], [], [], [], [bird(1)]])[-1] == [0]
    assert link_boxes([[bird(0)], [], [], [], [], [], [], [bird(1)]])[-1] == [1]
    # Apart: the same object when near, another one when far or of another class.
    assert link_boxes([[bird(0)], [bird(15)], [bird(90)]]) == [[0], [0], [1]]
    assert link_boxes([[bird(0)], [("drone", (0.0, 100.0, 10.0, 10.0))]]) == [[0], [1]]


def test_clips_of_one_object_have_one_number_and_no_frame_with_two():
    pytest.importorskip("scipy", reason="SciPy is not installed")
    from prepare_airborne import add_clip

    a, b = ("drone", (0.0, 0.0, 4.0, 4.0)), ("drone", (300.0, 0.0, 4.0, 5.0))
    of_one, of_several = ("airborne_vid", "train"), ("airborne_ir", "train")
    for of, frames, objects in ((of_one, [0, 1], {6}), (of_several, [0, 1, 2, 2], {6, 7})):
        document = {"videos": [], "images": [], "annotations": []}
        last = add_clip(document, "V_DRONE_001", (640, 512), [[a], [b], [a, b]], 5, of)
        by_image = {image["id"]: image["frame_id"] for image in document["images"]}
        assert [by_image[annotation["image_id"]] for annotation in document["annotations"]] == frames
        assert {annotation["instance_id"] for annotation in document["annotations"]} == objects and last == max(objects)
        assert document["annotations"][1]["area"] == 20.0 and document["videos"][0]["num_frames"] == 3


def test_no_clip_is_in_two_splits():
    for name, splits in json.loads((SCRIPTS / "airborne_splits.json").read_text()).items():
        clips = [(label, n) for split in splits.values() for label, numbers in split.items() for n in numbers]
        assert len(clips) == len(set(clips)) == {"airborne_vid": 93 + 24 + 74, "airborne_ir": 204 + 80}[name]


def test_a_folder_that_is_not_the_source_is_named_before_anything_is_written(tmp_path):
    from prepare_airborne import prepare

    with pytest.raises(ValueError, match=f"^{tmp_path}/Data/Video_V/V_AIRPLANE_009.mp4: does not exist"):
        list(prepare(tmp_path, tmp_path / "out", ["airborne_vid"], force=False))
    assert not (tmp_path / "out").exists()


def test_videos_are_copied_once_and_again_when_they_were_cut_short(tmp_path):
    from prepare_airborne import Clip, copy_videos

    clip = Clip("a", tmp_path / "a.mp4", tmp_path / "a.mat")
    clip.video.write_bytes(b"whole")
    copy = tmp_path / "out" / "a.mp4"
    for before, after in ((None, b"whole"), (b"cut", b"whole"), (b"equal", b"equal")):
        if before is not None:
            copy.write_bytes(before)
        copy_videos([clip], copy.parent)
        assert copy.read_bytes() == after and [path.name for path in copy.parent.iterdir()] == ["a.mp4"]


def test_every_frame_of_a_label_file_is_read(monkeypatch):
    matio = pytest.importorskip("matio", reason="mat-io is not installed")
    rows = np.array([[row(BIRD=[[11, 21, 5, 6]])], [row()]])
    truth = np.empty((1, 1), dtype=[("LabelData", object)])
    truth["LabelData"][0, 0] = rows
    files = {"V_BIRD_001_LABELS.mat": {"gTruth": SimpleNamespace(properties={"any": truth})}}
    monkeypatch.setattr(matio, "load_from_mat", files.__getitem__)
    assert read_labels(Path("V_BIRD_001_LABELS.mat"), 640, 512) == [[("bird", (10.0, 20.0, 5.0, 6.0))], []]


def test_what_is_no_label_file_is_one_line(tmp_path):
    pytest.importorskip("matio", reason="mat-io is not installed")
    path = tmp_path / "V_BIRD_001_LABELS.mat"
    for content in (b"", b"MATLAB 5.0 MAT-file" + bytes(200)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="V_BIRD_001_LABELS.mat: is no label file of the Drone-detection-dataset"):
            read_labels(path, 640, 512)
