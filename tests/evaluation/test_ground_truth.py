from __future__ import annotations

import numpy as np
import pytest
from detectron2.structures import BoxMode
from eventful_vitdet.errors import EvaluationError
from eventful_vitdet.evaluation.detection_table import DetectionTable
from eventful_vitdet.evaluation.ground_truth import NO_TRACK, Objects, locate_rows

from .metric_cases import annotation, frame, table

BOX = [1.0, 2.0, 11.0, 22.0]


def test_columns():
    plain = annotation(BOX, 1)
    as_sides = {**annotation([5.0, 5.0, 4.0, 2.0], 0), "bbox_mode": BoxMode.XYWH_ABS, "area": 3.0, "iscrowd": 1}
    objects = Objects.of_frames([frame(9, [plain]), frame(4, [as_sides]), frame(5, [])])
    assert objects.frames.tolist() == [0, 1] and objects.classes.tolist() == [1, 0]
    assert objects.boxes.tolist() == [BOX, [5, 5, 9, 7]]
    assert objects.areas.tolist() == [200, 3] and objects.crowds.tolist() == [False, True]


def test_tracks_are_of_a_video_and_text_is_no_number():
    tracks = [(1, 7), (2, 7), (1, 7), (1, "7"), (1, None), (1, -1)]
    frames = [frame(i, [annotation(BOX, track=track)], video=video) for i, (video, track) in enumerate(tracks)]
    values = Objects.of_frames(frames).tracks.tolist()
    assert values[0] == values[2] and len(set(values[:4])) == 3
    assert values[4:] == [NO_TRACK, NO_TRACK]


def test_an_instance_id_that_names_nothing():
    with pytest.raises(EvaluationError, match=r"frame 3 of video 1 has an object with instance_id \[2\]"):
        Objects.of_frames([frame(3, [annotation(BOX, track=[2])])])


def test_no_annotations():
    assert len(Objects.of_frames([frame(1, [])])) == len(Objects.of_frames([])) == 0


def test_rows_are_located():
    frames = [frame(9, []), frame(-2, []), frame(1 << 40, [])]
    detections = table((1 << 40, 0, 0.5, BOX), (9, 0, 0.5, BOX), (-2, 0, 0.5, BOX))
    assert locate_rows(frames, ["a"], detections).tolist() == [2, 0, 1]
    assert locate_rows(frames, ["a"], DetectionTable.empty()).tolist() == []


@pytest.mark.parametrize(
    "row, message",
    [
        ((8, 0, 0.5, BOX), "detections in image 8, which is not among the evaluated frames"),
        ((10, 0, 0.5, BOX), "detections in image 10"),
        ((9, 1, 0.5, BOX), "has class 1, but the data set has 1 classes"),
        ((9, -1, 0.5, BOX), "has class -1"),
        ((9, 0, np.nan, BOX), "not finite"),
        ((9, 0, 0.5, [0, 0, np.inf, 1]), "not finite"),
        ((9, 0, 0.5, [-np.inf, 0, 1, 1]), "not finite"),
    ],
)
def test_rows_that_fit_nowhere(row, message):
    with pytest.raises(EvaluationError, match=message):
        locate_rows([frame(9, [])], ["a"], table((9, 0, 0.5, BOX), row))


def test_detections_without_frames():
    with pytest.raises(EvaluationError, match="image 9"):
        locate_rows([], ["a"], table((9, 0, 0.5, BOX)))


def test_image_listed_twice():
    with pytest.raises(EvaluationError, match="image 9 is listed more than once"):
        locate_rows([frame(9, []), frame(9, [])], ["a"], DetectionTable.empty())
