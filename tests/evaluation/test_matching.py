from __future__ import annotations

import numpy as np
import pytest
from eventful_vitdet.evaluation import matching
from eventful_vitdet.evaluation.detection_table import DetectionTable
from eventful_vitdet.evaluation.ground_truth import Objects, locate_rows
from eventful_vitdet.evaluation.matching import EVERY_MARK, Matches, box_ious, match_detections

from .metric_cases import annotation, frame, random_case, table

A, B = [0.0, 0.0, 19.0, 9.0], [8.0, 0.0, 27.0, 9.0]  # 20 x 10 pixels each, 8 apart


def match(frames: list[dict], detections: DetectionTable, marks: list[int] | None = None) -> tuple[Objects, Matches]:
    objects = Objects.of_frames(frames)
    rows = locate_rows(frames, ["a", "b", "c"], detections)
    marks = np.array([1] * len(objects) if marks is None else marks, np.uint8)
    return objects, match_detections(objects, detections, rows, object_marks=marks)


def test_iou_counts_pixels_or_lengths():
    # With both ends included 20 x 10 and 20 x 10 pixels, 12 of 28 columns shared; as lengths 19 and 19, 11 of 27.
    first, second = np.array([A]), np.array([B])
    assert box_ious(first, second, pixel=1) == pytest.approx(12 / 28)
    assert box_ious(first, second, pixel=0) == pytest.approx(11 / 27)


def test_boxes_apart_touching_or_without_area():
    boxes = np.array([A, A, A, [3.0, 3, 3, 3], [5.0, 5, 2, 2]])
    others = np.array([[30.0, 0, 40, 9], [19.0, 0, 38, 9], [20.0, 0, 39, 9], [3.0, 3, 3, 3], [5.0, 5, 2, 2]])
    assert box_ious(boxes, others, pixel=0).tolist() == [0, 0, 0, 0, 0]
    # Columns 19 are shared by the second pair: 10 of 390 pixels. A point is one pixel; a turned box is none.
    assert box_ious(boxes, others, pixel=1) == pytest.approx([0, 10 / 390, 0, 1, 0])


def test_iou_of_exactly_one_half_suffices():
    # 20 of 40 columns, then 19 of 40.
    _, matches = match([frame(1, [annotation([0, 0, 39, 9])])], table((1, 0, 0.9, [0, 0, 19, 9])))
    assert matches.partners.tolist() == [0]
    _, matches = match([frame(1, [annotation([0, 0, 39, 9])])], table((1, 0, 0.9, [0, 0, 18, 9])))
    assert matches.partners.tolist() == [-1]


def test_the_higher_score_takes_the_object_though_the_other_fits_better():
    detections = table((1, 0, 0.5, A), (1, 0, 0.6, [2, 0, 21, 9]))
    _, matches = match([frame(1, [annotation(A)])], detections)
    assert matches.partners.tolist() == [-1, 0]


def test_a_detection_takes_the_best_of_the_free_objects():
    # The first row takes B, which is nearer; the second would like B too and is left with A: 15 of 25 columns.
    detections = table((1, 0, 0.9, [7, 0, 26, 9]), (1, 0, 0.8, [5, 0, 24, 9]))
    objects, matches = match([frame(1, [annotation(B), annotation(A)])], detections)
    assert objects.boxes[matches.partners].tolist() == [B, A]


def test_equal_scores_go_by_box():
    # Both would take the only object; the one further left is first.
    rows = ((1, 0, 0.5, [1, 0, 20, 9]), (1, 0, 0.5, [0, 0, 19, 9]))
    for order, expected in ((rows, [-1, 0]), (rows[::-1], [0, -1])):
        assert match([frame(1, [annotation(A)])], table(*order))[1].partners.tolist() == expected


def test_other_frames_and_classes_are_no_partners():
    frames = [frame(5, [annotation(A, 1)]), frame(3, [annotation(A, 0)])]
    _, matches = match(frames, table((5, 0, 0.9, A), (3, 1, 0.9, A), (3, 0, 0.9, A), (5, 1, 0.9, A)))
    assert matches.partners.tolist() == [-1, -1, 1, 0]
    assert matches.marks.tolist() == [EVERY_MARK, EVERY_MARK, 1, 1]


def test_marks_come_from_the_nearest_objects():
    objects = [annotation([0, 0, 9, 9]), annotation([20, 0, 29, 9])]
    detections = table(
        (1, 0, 0.9, [8, 0, 23, 9]),  # 2 columns of the first, 4 of the second
        (1, 0, 0.8, [8, 0, 21, 9]),  # 2 of either
        (1, 0, 0.7, [50, 0, 60, 9]),  # of neither: as near to one as to the other
    )
    _, matches = match([frame(1, objects)], detections, marks=[0b010, 0b100])
    assert matches.marks.tolist() == [0b100, 0b110, 0b110]


def test_parts_do_not_change_the_result(monkeypatch):
    frames, detections = random_case(np.random.default_rng(0))
    marks = [1] * sum(len(one["annotations"]) for one in frames)
    whole = match(frames, detections, marks)[1]
    monkeypatch.setattr(matching, "ROWS_AT_ONCE", 5)
    parts = match(frames, detections, marks)[1]
    np.testing.assert_array_equal(whole.partners, parts.partners)
    np.testing.assert_array_equal(whole.marks, parts.marks)
    assert (whole.partners >= 0).sum() > 30


def test_nothing_at_all():
    assert len(match([frame(1, [])], DetectionTable.empty())[1].partners) == 0
    assert match([frame(1, [])], table((1, 0, 0.9, A)))[1].partners.tolist() == [-1]
