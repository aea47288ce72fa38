from __future__ import annotations

import numpy as np
import pytest
from eventful_vitdet.evaluation.ground_truth import NO_TRACK
from eventful_vitdet.evaluation.motion import motion_ious, motion_ranges

from . import reference_metrics
from .metric_cases import as_objects, random_case


def of_track(positions: list[float], numbers: list[int], tracks: list[int] | None = None) -> np.ndarray:
    """Motion IoU of boxes of 20 x 10 pixels at these x."""
    boxes = np.array([[x, 0.0, x + 20, 10.0] for x in positions])
    return motion_ious(np.array(tracks or [0] * len(boxes)), np.array(numbers), boxes)


def test_still_object_has_motion_iou_one():
    assert of_track([5, 5, 5], [0, 1, 2]).tolist() == [1, 1, 1]


def test_moving_object_by_hand():
    # Moved by d pixels, boxes of width 20 share 20 - d of 20 + d pixels: 16/24 for one frame of 4, 12/28 for two.
    one, two = 16 / 24, 12 / 28
    np.testing.assert_allclose(
        of_track([0, 4, 8], [3, 4, 5]), [(one + two) / 2, one, (one + two) / 2], rtol=0, atol=1e-9
    )


def test_window_is_ten_frame_numbers_to_either_side():
    # Numbers, not positions in the list: frames 0 and 10 see each other; 0 and 11 do not, though they are neighbours.
    assert of_track([0, 100], [0, 10]).tolist() == [0, 0]
    assert np.isnan(of_track([0, 0], [0, 11])).all()
    # 30 sees 20 and 40 alone: still. 19 lies 11 away from 30 and sees only 20, which is somewhere else.
    values = of_track([300, 0, 0, 0], [19, 20, 30, 40])
    assert values.tolist() == [0, 0.5, 1, 1]


def test_tracks_do_not_see_each_other_and_unknown_ones_have_no_motion():
    values = of_track([0, 0, 50, 50, 9, 9], [0, 1, 0, 1, 0, 1], [4, 5, 6, 6, NO_TRACK, NO_TRACK])
    np.testing.assert_array_equal(values, [np.nan, np.nan, 1, 1, np.nan, np.nan])


def test_no_objects():
    assert of_track([], []).tolist() == []


def test_thresholds_belong_to_medium():
    ranges = motion_ranges(np.array([0.95, 0.9, 0.8, 0.7, 0.69, np.nan]))
    assert ranges.astype(int).tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]


def test_a_mean_that_equals_a_threshold_is_not_moved_by_rounding():
    # Boxes of 19 pixels, the first moved by 1: 18 / 20 = 0.9 each time, however many of them are summed.
    boxes = np.array([[1.0, 0, 20, 10]] + [[0.0, 0, 19, 10]] * 10)
    values = motion_ious(np.zeros(11, int), np.arange(11), boxes)
    assert values[0] == 0.9 and motion_ranges(values)[0].tolist() == [False, True, False]


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_plain_loop(seed):
    frames, _ = random_case(np.random.default_rng(seed), num_frames=60)
    objects = as_objects(frames)
    expected = [reference_metrics.motion_iou(entry, objects) for entry in objects]
    names = sorted({(o["video"], o["track"]) for o in objects if o["track"] is not None})
    tracks = [NO_TRACK if o["track"] is None else names.index((o["video"], o["track"])) for o in objects]
    order = np.random.default_rng(seed).permutation(len(objects))
    values = motion_ious(
        np.array(tracks)[order],
        np.array([o["number"] for o in objects])[order],
        np.array([o["box"] for o in objects])[order],
    )
    np.testing.assert_allclose(values, np.array(expected)[order], rtol=0, atol=1e-9)
    assert np.isnan(values).any() and motion_ranges(values).any(axis=0).all()  # every range occurs
