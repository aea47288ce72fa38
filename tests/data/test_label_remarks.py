"""What a check says of labels that can be read, but are odd."""

from __future__ import annotations

from eventful_vitdet.data.dataset_check import DatasetReport, format_report
from eventful_vitdet.data.label_remarks import label_remarks
from eventful_vitdet.data.video_data import VideoData

SQUARE = [[2, 2, 12, 2, 12, 12, 2, 12]]
"""In the box 2, 2, 10, 10."""


def entry(instance: object = -1, label: int = 0, box=(2, 2, 10, 10), **others) -> dict:
    return {"bbox": list(box), "bbox_mode": 1, "category_id": label, "instance_id": instance, **others}


def remarks(*frames: list[dict]) -> list[str]:
    listed = [
        {"video_id": 4, "frame_id": number, "height": 40, "width": 40, "annotations": annotations}
        for number, annotations in enumerate(frames)
    ]
    return label_remarks(VideoData(["cat", "dog"], [1, 2], listed, {4: "street"}))


def test_sound_labels_need_no_remark():
    assert remarks([entry(1, segmentation=SQUARE), entry(2, 1)], [entry(1)], []) == []
    assert remarks([entry(), entry(None, 1)]) == []  # no identities at all
    assert remarks([entry(1), entry(1, 1, iscrowd=1), entry(iscrowd=1, box=(20, 20, 9, 9), segmentation=SQUARE)]) == []


def test_boxes_away_from_their_masks():
    wrong = entry(1, box=(20, 20, 10, 10), segmentation=SQUARE)
    nothing = entry(2, segmentation={"size": [40, 40], "counts": [1600]})
    assert remarks([entry(3, segmentation=SQUARE)], [wrong, nothing]) == [
        "2 boxes are not around their masks (IoU below 0.5), the first: frame 1 of video street"
    ]


def test_identities_that_are_not_those_of_one_object():
    assert remarks([entry(1)], [entry(1), entry(1)]) == [
        "1 identities occur more than once in their frame, the first: frame 1 of video street"
    ]
    assert remarks([entry("a"), entry(7)], [entry("a", 1)], [entry("a", 1), entry(7)]) == [
        "1 tracks have more than one class, the first: instance_id a of video street"
    ]
    assert remarks([entry(1)], [entry(), entry(2)], [entry()]) == [
        "2 objects have no identity (instance_id), while others have one, the first: frame 1 of video street"
    ]


def test_remarks_are_in_the_report_and_no_fault():
    totals = {"videos": 1, "boxes": 3}
    report = DatasetReport("set", totals, {}, {"cat": (3, 1)}, {}, decoded=True, remarks=["2 boxes are odd"])
    assert "\nlabels: 2 boxes are odd\n" in format_report(report) and report.is_sound
