"""Checking a data set: its numbers, and whatever is missing or unreadable by name."""

from __future__ import annotations

import pytest
from eventful_vitdet.data import dataset_check as check_module
from eventful_vitdet.data import parallel_map as processes_module
from eventful_vitdet.data import register_test_json
from eventful_vitdet.data.dataset_check import check_dataset, format_report
from eventful_vitdet.errors import DatasetError
from video.encoded_videos import encode

from .conftest import make_document
from .imagenet_vid.conftest import full_tree, tree, write_jpeg  # noqa: F401  (fixtures)

FIRST = "val/ILSVRC2015_val_00000000"


def test_numbers(full_tree):  # noqa: F811
    report = check_dataset("imagenet_vid_val", is_part=True)
    assert report.is_sound and report.totals == {
        "videos": 2,
        "sequences": 2,
        "frames": 8,
        "frames with objects": 6,
        "frames without objects": 2,
        "boxes": 9,
        "tracks": 4,
    }
    assert {name: numbers for name, numbers in report.classes.items() if any(numbers)} == {"car": (6, 2), "dog": (3, 2)}
    assert format_report(report).endswith("imagenet_vid_val: complete; every frame was decoded")


def test_known_totals_are_compared(full_tree, monkeypatch):  # noqa: F811
    report = check_dataset("imagenet_vid_val", quick=True)
    text = format_report(report)
    assert not report.is_sound and "known to be 176,126" in text and "known to be 273,505" in text
    assert "NOT complete: videos, frames, frames with objects, frames without objects, boxes: not as many" in text
    monkeypatch.setitem(check_module.KNOWN_TOTALS, "imagenet_vid_val", {"videos": 2, "boxes": 9})
    report = check_dataset("imagenet_vid_val", quick=True)
    assert report.is_sound and format_report(report).count("as known") == 2


def test_other_classes_are_counted(full_tree):  # noqa: F811
    text = format_report(check_dataset("imagenet_det_30_train", quick=True))
    assert "left out: 2 objects of 1 other classes" in text


@pytest.mark.parametrize("processes", [1, 2])
def test_everything_missing_or_unreadable_is_named(full_tree, monkeypatch, processes):  # noqa: F811
    monkeypatch.setattr(processes_module, "usable_processes", lambda: processes)
    cut = full_tree.image("VID", f"{FIRST}/000002")
    cut.write_bytes(cut.read_bytes()[:300])
    other_size = write_jpeg(full_tree.image("VID", f"{FIRST}/000004"), size=(20, 10))
    report = check_dataset("imagenet_vid_val", is_part=True)
    text = format_report(report)
    assert not report.is_sound and f"video {FIRST} cannot be used:" in text
    assert f"  {cut}: cannot be read as an image" in text and f"  {other_size}: frame 4 is 20 x 10" in text
    assert text.endswith("NOT complete: 1 videos cannot be used")
    assert check_dataset("imagenet_vid_val", is_part=True, quick=True).is_sound

    absent = full_tree.image("VID", "val/ILSVRC2015_val_00007010/000001")
    absent.unlink()
    xml = full_tree.xml("VID", "val/ILSVRC2015_val_00007010/000002")
    xml.write_text("")
    text = format_report(check_dataset("imagenet_vid_val", is_part=True))
    assert f"  {absent}: does not exist" in text and f"  {xml}: is not valid XML" in text and str(cut) in text
    assert text.endswith("NOT complete: 2 videos cannot be used")
    assert f"{xml}: is not" not in format_report(check_dataset("imagenet_vid_val", quick=True), max_defects=0)


def test_video_files(write_dataset, tmp_path):
    name = register_test_json(write_dataset(make_document({1: [0, 1], 2: [0, 13], 3: []}))[0])
    report = check_dataset(name)
    (bad,) = report.bad_videos
    assert bad.video_id == 2 and "2.avi: frame 13 cannot be read" in bad.reason
    assert (report.totals["videos"], report.totals["sequences"], report.totals["frames"]) == (3, 2, 4)


def test_a_quick_look_at_video_files(write_dataset, tmp_path):
    document = make_document({1: [0, 1], 2: [0, 13], 3: [11], 4: [12], 5: [0], 6: [0]})
    document["videos"][4]["width"] = 80
    json_file, _ = write_dataset(document)
    for number in (3, 4):  # whose packets do not tell how many frames there are
        encode(tmp_path / f"videos/{number}.avi", "mpeg4", count=12, size=(64, 48))
    cut = tmp_path / "videos" / "6.avi"
    cut.write_bytes(cut.read_bytes()[:6000])
    report = check_dataset(register_test_json(json_file), quick=True)
    reasons = {bad.video_id: bad.reason for bad in report.bad_videos}
    assert set(reasons) == {2, 4, 5, 6}
    assert "2.avi: frame 13 cannot be read; the video ends after 12 frames" in reasons[2]
    assert "4.avi: frame 12 cannot be read; the video ends after 12 frames" in reasons[4]
    assert "5.avi: frame 0 is 64 x 48 pixels, but the annotation file lists 80 x 48" in reasons[5]
    assert "6.avi: the file is cut short" in reasons[6]


def test_unknown_name():
    with pytest.raises(DatasetError, match="'nope' is no registered video data set; there are: .*imagenet_vid_val"):
        check_dataset("nope")
