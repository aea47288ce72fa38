"""Mixing data sets: shares, passes, classes, processes, seeds."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from detectron2.utils import comm
from eventful_vitdet.data.training_sampler import MixedSampler
from eventful_vitdet.errors import DatasetError


def frames(*videos: tuple[int, list[int]]) -> list[dict]:
    """Frame dicts of videos, each given by its number and the class of each of its frames (-1: no object)."""
    return [
        {"video_id": video, "annotations": [{"category_id": label}] if label >= 0 else []}
        for video, labels in videos
        for label in labels
    ]


def draw(sampler: MixedSampler, count: int) -> list[int]:
    return list(itertools.islice(iter(sampler), count))


SMALL, LARGE = frames((1, [0, 0, 1])), frames((1, [0] * 20), (2, [1] * 17))


def test_without_ratios_every_frame_comes_once_a_pass():
    order = draw(MixedSampler([SMALL, LARGE], seed=3), 120)
    passes = [order[i : i + 40] for i in (0, 40, 80)]
    assert all(sorted(one) == list(range(40)) for one in passes)
    assert passes[0] != passes[1] != passes[2]


@pytest.mark.parametrize(("ratios", "share"), [((1, 1), 0.5), ((0.3, 0.1), 0.75), ((1, 3), 0.25)])
@pytest.mark.parametrize("balance", [False, True])
def test_shares_of_data_sets_follow_the_ratios(ratios, share, balance):
    order = draw(MixedSampler([SMALL, LARGE], ratios, balance_classes=balance, seed=0), 4000)
    # Four standard deviations of a binomial share, at most sqrt(1 / 4 / 4000) = 0.008.
    assert np.mean([index < 3 for index in order]) == pytest.approx(share, abs=0.032)
    assert set(order) == set(range(40))


def test_each_data_set_comes_in_passes_of_its_own():
    order = draw(MixedSampler([SMALL, LARGE], (1, 1), seed=1), 600)
    of_small = [index for index in order if index < 3]
    complete = len(of_small) // 3 * 3
    assert all(sorted(of_small[i : i + 3]) == [0, 1, 2] for i in range(0, complete, 3))


def test_processes_share_out_one_stream(monkeypatch):
    whole = draw(MixedSampler([SMALL, LARGE], (1, 2), seed=7), 90)
    monkeypatch.setattr(comm, "get_world_size", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        assert draw(MixedSampler([SMALL, LARGE], (1, 2), seed=7), 30) == whole[rank::3]


def test_the_stream_depends_on_the_seed_alone():
    sampler = MixedSampler([SMALL, LARGE], (1, 1), seed=5)
    assert draw(sampler, 50) == draw(sampler, 50) == draw(MixedSampler([SMALL, LARGE], (1, 1), seed=5), 50)
    assert draw(sampler, 50) != draw(MixedSampler([SMALL, LARGE], (1, 1), seed=6), 50)


def test_a_resumed_run_does_not_repeat_the_first():
    sampler, resumed = MixedSampler([LARGE], seed=5), MixedSampler([LARGE], seed=5)
    resumed.images_before = 30
    assert draw(sampler, 37) != draw(resumed, 37)
    assert draw(resumed, 37) == draw(resumed, 37)


def test_processes_agree_on_a_random_seed(monkeypatch):
    monkeypatch.setattr(comm, "shared_random_seed", lambda: 11)
    assert draw(MixedSampler([LARGE], seed=-1), 20) == draw(MixedSampler([LARGE], seed=11), 20)


def test_balanced_classes_and_videos():
    # Class 0 is in nine videos, class 1 in one of 90 frames: 3 : 1 by the square roots; videos of a class come alike.
    videos = frames(*((v, [0] * (1 if v else 50)) for v in range(9)), (9, [1] * 90), (10, [-1] * 30))
    order = draw(MixedSampler([videos], balance_classes=True, seed=0), 4000)
    shown = Counter(videos[index]["video_id"] for index in order)
    assert 10 not in shown
    assert shown[9] / 4000 == pytest.approx(0.25, abs=0.03)  # four standard deviations are 0.027
    for video in range(9):
        assert shown[video] / 4000 == pytest.approx(0.75 / 9, abs=0.02)  # and here 0.017


def test_equal_video_numbers_of_two_data_sets_are_different_videos():
    # Two videos "1", of 1 and of 99 frames: alike if kept apart, 1 : 99 if taken for one.
    order = draw(MixedSampler([frames((1, [0])), frames((1, [0] * 99))], balance_classes=True, seed=0), 1000)
    assert np.mean([index == 0 for index in order]) == pytest.approx(0.5, abs=0.07)


def test_crowds_do_not_count_as_a_class():
    only_crowd = [{"video_id": 1, "annotations": [{"category_id": 0, "iscrowd": 1}]}]
    with pytest.raises(DatasetError, match="BALANCE_CLASSES"):
        MixedSampler([only_crowd], balance_classes=True, seed=0)


@pytest.mark.parametrize("ratios", [(1,), (1, 2, 3)])
def test_number_of_ratios(ratios):
    with pytest.raises(ValueError, match=f"DATASET_RATIOS has {len(ratios)} numbers, but DATASETS.TRAIN names 2"):
        MixedSampler([SMALL, LARGE], ratios)


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf"), "2", True, None])
def test_bad_ratio(bad):
    with pytest.raises(ValueError, match="a ratio is a positive number"):
        MixedSampler([SMALL, LARGE], (1, bad))
