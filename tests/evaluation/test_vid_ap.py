from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from eventful_vitdet.evaluation.ground_truth import Objects, locate_rows
from eventful_vitdet.evaluation.matching import match_detections
from eventful_vitdet.evaluation.object_ranges import by_size, mark_objects, undivided
from eventful_vitdet.evaluation.vid_ap import area_under_curve, average_precisions, mean_over_classes
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from . import reference_metrics
from .metric_cases import annotation, frame, table


def area(true_scores: list[float], false_scores: list[float], num_objects: int) -> float | None:
    return area_under_curve(np.array(true_scores, float), np.array(false_scores, float), num_objects)


def test_area_by_hand():
    # Falling scores: true, false, true, true; four objects. Precisions 1, 1/2, 2/3, 3/4 at recalls 1/4, 1/4, 2/4, 3/4.
    # The best from each recall on: 1 for the first quarter, 3/4 for the second and the third, 0 for the last.
    assert area([0.9, 0.7, 0.6], [0.8], 4) == pytest.approx((1 + 3 / 4 + 3 / 4 + 0) / 4)


def test_half_of_the_objects_found_is_one_half():
    assert area([0.9], [], 2) == 0.5  # COCO's 101 points say 51/101


def test_false_positives_below_all_true_ones_cost_nothing():
    assert area([0.9, 0.8], [0.7] * 50, 2) == 1


def test_equal_scores_are_taken_together():
    # One true and one false positive at the same score: precision 1/2, whichever is named first.
    assert area([0.5], [0.5], 1) == 0.5
    # Two true ones and a false one at 0.5, above them a false one: precision 2/4.
    assert area([0.5, 0.5], [0.9, 0.5], 2) == 0.5


def test_ends():
    assert area([], [0.5], 3) == 0
    assert area([], [], 3) == 0
    assert area([], [0.5], 0) is None


SCORES = st.lists(st.integers(0, 8).map(lambda n: n / 8), max_size=12)


@settings(max_examples=200, deadline=None)
@given(SCORES, SCORES, st.integers(0, 3))
def test_area_equals_the_definition(true_scores, false_scores, missed):
    num_objects = len(true_scores) + missed
    expected = reference_metrics.average_precision(true_scores, false_scores, num_objects)
    value = area(true_scores, false_scores, num_objects)
    # Sums of at most 15 fractions.
    assert value is None if expected is None else value == pytest.approx(expected / 100, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(SCORES, SCORES, st.integers(0, 3), st.floats(0, 1))
def test_a_further_false_positive_never_helps_and_a_true_one_never_hurts(true_scores, false_scores, missed, score):
    num_objects = len(true_scores) + missed + 1
    before = area(true_scores, false_scores, num_objects)
    assert area(true_scores, [*false_scores, score], num_objects) <= before + 1e-12
    assert area([*true_scores, score], false_scores, num_objects) >= before - 1e-12


def test_mean_over_the_classes_that_have_objects():
    assert mean_over_classes(np.array([50.0, np.nan, 100.0])) == 75
    assert mean_over_classes(np.array([np.nan])) is None


def spread_case(seed: int) -> tuple[list[dict], list[tuple]]:
    """20 frames of objects that lie 300 pixels apart, and detections of different scores around them.

    No detection can be near two objects, so it does not matter which of several is preferred. Some objects lie in
    crowds, and some crowds by themselves.
    """
    rng = np.random.default_rng(seed)
    frames, rows = [], []
    for image_id in range(20):
        objects = []
        for column in range(rng.integers(0, 4)):
            corner = np.array([300.0 * column, 0.0]) + rng.uniform(0, 20, 2)
            sides = rng.choice([20, 60, 150], 2) * rng.uniform(0.8, 1.2, 2)
            box = np.array([*corner, *(corner + sides)], np.float32).astype(float)  # as a table keeps them
            label, kind = int(rng.integers(2)), rng.random()
            if kind < 0.8:
                objects.append(annotation(box.tolist(), label))
            if kind > 0.6:
                crowd = box + np.array([-20.0, -20.0, 15.0, 15.0]) * rng.uniform(0, 1.5)
                objects.append(annotation(crowd.tolist(), label, iscrowd=1))
            for _ in range(rng.integers(0, 4)):
                near = box + rng.normal(0, 0.15, 4) * np.tile(sides, 2)
                near[2:] = np.maximum(near[2:], near[:2] + 2)
                rows.append((image_id, int(rng.integers(2)), rng.random(), near))
        frames.append(frame(image_id, objects))
    return frames, rows


def pycocotools_precision(frames: list[dict], detections) -> np.ndarray:
    """COCOeval's precision at IoU 0.5, (recalls, classes, areas), of boxes made one pixel longer.

    That turns COCO's IoU into the one that counts pixels; areas stay those of the boxes as they were.
    """

    def entry(number, image_id, label, box, **more):
        x0, y0, x1, y1 = box
        sides = {"bbox": [x0, y0, x1 - x0 + 1, y1 - y0 + 1], "area": (x1 - x0) * (y1 - y0)}
        return {"id": number, "image_id": image_id, "category_id": label, "iscrowd": 0, **sides, **more}

    boxes = [(one["image_id"], box) for one in frames for box in one["annotations"]]
    truth = [
        entry(i, image, box["category_id"], box["bbox"], iscrowd=box.get("iscrowd", 0))
        for i, (image, box) in enumerate(boxes, 1)
    ]
    columns = (detections.image_ids, detections.classes, detections.boxes, detections.scores)
    found = [
        entry(i, image, label, box, score=score)
        for i, (image, label, box, score) in enumerate(zip(*(c.tolist() for c in columns)), 1)
    ]
    indexed = []
    with contextlib.redirect_stdout(io.StringIO()):
        for entries in (truth, found):
            coco = COCO()
            coco.dataset = {
                "images": [{"id": one["image_id"]} for one in frames],
                "categories": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}],
                "annotations": entries,
            }
            coco.createIndex()
            indexed.append(coco)
        evaluation = COCOeval(*indexed, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][0, :, :, :, -1]


def at_101_recalls(true_scores: np.ndarray, false_scores: np.ndarray, num_objects: int) -> np.ndarray:
    """COCO's interpolation: the best precision at each of 101 recalls or a higher one."""
    scores = np.concatenate([true_scores, false_scores])
    order = np.argsort(-scores)
    true = (np.arange(len(scores)) < len(true_scores))[order]
    recall, precision = true.cumsum() / num_objects, true.cumsum() / np.arange(1, len(scores) + 1)
    return np.array([max(precision[recall >= point], default=0) for point in np.linspace(0, 1, 101)])


@pytest.mark.parametrize("seed", range(3))
def test_matches_and_sizes_equal_pycocotools(seed):
    """The same matches, read off at COCO's 101 recalls, give COCOeval's precisions, by size too; and areas are near."""
    frames, rows = spread_case(seed)
    detections = table(*rows)
    objects = Objects.of_frames(frames)
    marks = mark_objects(objects, np.full(len(objects), np.nan))
    matches = match_detections(objects, detections, locate_rows(frames, "ab", detections), object_marks=marks)
    whole, sizes = undivided(marks, matches), by_size(objects, marks, detections, matches)
    areas = average_precisions(objects, detections, matches, [whole, sizes], 2)
    areas = np.concatenate(areas) / 100  # all, small, medium, large
    expected = pycocotools_precision(frames, detections)
    checked = 0
    for label in range(2):
        for i, (split, bit) in enumerate([(whole, 0), (sizes, 0), (sizes, 1), (sizes, 2)]):
            counted = (split.objects >> bit & 1).astype(bool)
            of_class = detections.classes == label
            true = of_class & (matches.partners >= 0) & counted[matches.partners]
            false = of_class & (matches.partners < 0) & (split.detections >> bit & 1).astype(bool)
            num_objects = int((counted & (objects.classes == label)).sum())
            if num_objects == 0:
                assert (expected[:, label, i] == -1).all() and np.isnan(areas[i, label])
                continue
            points = at_101_recalls(detections.scores[true], detections.scores[false], num_objects)
            np.testing.assert_allclose(points, expected[:, label, i], rtol=0, atol=1e-12)
            # A mean over 101 points is the area of a falling curve but for one step of it.
            assert abs(points.mean() - areas[i, label]) <= 1 / 101
            checked += 1
    assert checked >= 6 and 0.05 < np.nanmean(areas) < 0.95
