from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from eventful_vitdet.evaluation import bootstrap
from eventful_vitdet.evaluation.detection_table import DetectionTable
from eventful_vitdet.evaluation.metrics import VID_AP50, compute_agreement, compute_vid_ap50, resample_vid_ap50

from .metric_cases import random_case

CLASSES = ["one", "two", "three"]
Video = tuple[list[dict], DetectionTable]


def some_videos(number: int, seed: int = 0) -> list[Video]:
    """Videos of 15 frames with objects, ties of scores, crowds, and false detections."""
    videos = []
    for i in range((number + 1) // 2):
        frames, table = random_case(np.random.default_rng([seed, i]))
        for video in (0, 1):
            chosen = [frame for frame in frames if frame["video_id"] == frames[15 * video]["video_id"]]
            inside = np.isin(table.image_ids, [frame["image_id"] for frame in chosen])
            videos.append((chosen, table.select(np.flatnonzero(inside))))
    return videos[:number]


def joined(videos: Iterable[Video]) -> Video:
    """All videos as a data set, each with ids of its own, so that one may occur several times."""
    all_frames, tables = [], []
    for video_id, (frames, table) in enumerate(videos):
        shift = 1000 * video_id
        all_frames += [{**frame, "image_id": frame["image_id"] + shift, "video_id": video_id} for frame in frames]
        tables.append(
            DetectionTable(table.image_ids + shift, table.classes, table.scores, table.boxes, masks=table.masks)
        )
    return all_frames, DetectionTable.join(tables)


def test_a_draw_has_the_value_of_the_videos_drawn():
    videos = some_videos(6)
    frames, table = joined(videos)
    values = resample_vid_ap50(frames, CLASSES, table)
    draws = bootstrap.draw_videos(len(videos)).astype(int)
    assert values.shape == (bootstrap.SAMPLES,) and (draws.sum(axis=1) == len(videos)).all()
    for value, counts in list(zip(values, draws))[:12]:
        drawn = joined(video for video, count in zip(videos, counts) for _ in range(count))
        # Sums of a few hundred fractions.
        assert value == pytest.approx(compute_vid_ap50(drawn[0], CLASSES, drawn[1])[VID_AP50], abs=1e-9)


def test_agreement_is_resampled_alike():
    videos, others = some_videos(5), some_videos(5, seed=1)
    frames, table = joined(videos)
    reference = joined((frames, table) for (frames, _), (_, table) in zip(videos, others))[1]
    values = resample_vid_ap50(frames, CLASSES, table, reference)
    counts = bootstrap.draw_videos(5)[3].astype(int)
    drawn = [i for i in range(5) for _ in range(counts[i])]
    expected = compute_agreement(
        *(joined(videos[i] for i in drawn)[0], CLASSES, [1, 2, 3]),
        joined((videos[i][0], others[i][1]) for i in drawn)[1],
        joined(videos[i] for i in drawn)[1],
    )
    assert values[3] == pytest.approx(expected[VID_AP50], abs=1e-9)


def test_equal_videos_vary_not_at_all_and_unequal_ones_around_the_value():
    video = some_videos(1)[0]
    frames, table = joined([video] * 5)
    assert np.ptp(resample_vid_ap50(frames, CLASSES, table)) < 1e-9
    frames, table = joined(some_videos(8))
    low, high = bootstrap.percentiles(resample_vid_ap50(frames, CLASSES, table))
    assert low < compute_vid_ap50(frames, CLASSES, table)[VID_AP50] < high


def test_few_videos_say_nothing():
    frames, table = joined(some_videos(bootstrap.MIN_VIDEOS - 1))
    assert resample_vid_ap50(frames, CLASSES, table) is None


def test_a_class_without_objects_in_a_draw_is_left_out_and_no_object_at_all_is_undefined():
    videos = some_videos(5)
    for frames, _ in videos[1:]:
        for frame in frames:
            frame["annotations"] = []
    frames, table = joined(videos)
    values = resample_vid_ap50(frames, CLASSES, table)
    without = bootstrap.draw_videos(5)[:, 0] == 0
    assert without.any() and np.isnan(values[without]).all() and not np.isnan(values[~without]).any()
    assert bootstrap.percentiles(np.full(3, np.nan)) is None


def test_many_scores_are_taken_together_within_the_bound(monkeypatch):
    frames, table = joined(some_videos(8))
    rng = np.random.default_rng(0)
    spread = DetectionTable(table.image_ids, table.classes, rng.random(len(table), np.float32), table.boxes)
    exact = resample_vid_ap50(frames, CLASSES, spread)
    monkeypatch.setattr(bootstrap, "MAX_LEVELS", 50)
    coarse = resample_vid_ap50(frames, CLASSES, spread)
    # The bound holds for the videos as they are; a draw may hold a video several times, at most 6 of 8 here.
    assert (coarse <= exact + 1e-9).all() and (exact - coarse).mean() < 100 / 50
    assert (coarse != exact).any()
