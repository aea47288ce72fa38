"""Numbers of objects over a video's frames."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from eventful_vitdet.errors import MissingPackageError
from eventful_vitdet.identities import UNKNOWN, ObjectTracker, check_tracking
from eventful_vitdet.structures import Detections


def test_absent_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackers", None)
    monkeypatch.setitem(sys.modules, "supervision", sys)
    with pytest.raises(MissingPackageError, match="trackers is not installed.*--no-deps trackers"):
        check_tracking()


@pytest.fixture
def trackers():
    pytest.importorskip("trackers", reason="the extra 'track' is not installed")


def moving(index: int) -> Detections:
    """Two strong objects that move towards each other's side, in an order that changes, and a weak detection."""
    left = [10 + 4 * index, 10, 40 + 4 * index, 60]
    right = [200 - 4 * index, 100, 240 - 4 * index, 150]
    weak = [300, 300, 310, 310]
    order = [0, 1, 2] if index % 2 else [2, 1, 0]
    boxes = np.array([left, right, weak], np.float32)[order]
    scores, classes = np.array([0.9, 0.8, 0.1], np.float32)[order], np.array([0, 5, 7], np.int32)[order]
    return Detections(boxes, scores, classes)


def test_objects_keep_their_numbers(trackers):
    tracker, other = ObjectTracker(30), ObjectTracker(30)
    seen = []
    for index in range(12):
        found = tracker.identify(moving(index), sequence=0)
        assert np.array_equal(found.boxes, moving(index).boxes)
        seen.append(dict(zip(found.classes.tolist(), found.tracks.tolist())))
        other.identify(moving(index), sequence=0)  # numbers of its own
    assert {frame[7] for frame in seen} == {UNKNOWN}
    assert {frame[0] for frame in seen[3:]} | {frame[5] for frame in seen[3:]} == {1, 2}
    assert seen[3:] == [seen[3]] * 9


def test_another_video_has_other_objects(trackers):
    tracker = ObjectTracker(30)
    for sequence in (0, 1):
        for index in range(6):
            found = tracker.identify(moving(index), sequence)
        assert sorted(found.tracks.tolist()) == [UNKNOWN, 2 * sequence + 1, 2 * sequence + 2]


def test_frames_without_detections(trackers):
    tracker = ObjectTracker(30)
    nothing = moving(0).select(np.zeros(3, bool))
    assert tracker.identify(nothing, 0).tracks.shape == (0,)
    for index in range(4):
        before = tracker.identify(moving(index), 0)
    assert tracker.identify(nothing, 0).tracks.shape == (0,)
    after = tracker.identify(moving(5), 0)
    assert set(after.tracks.tolist()) == set(before.tracks.tolist())
