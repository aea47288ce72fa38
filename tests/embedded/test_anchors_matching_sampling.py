import math

import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.sampling import subsample_labels

WRONG_USE = (AssertionError, ValueError)


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_anchors_follow_the_definition(offset):
    sizes, ratios, strides = [[16.0, 20.0], [64.0, 80.0]], [0.5, 1.0, 2.0], [8, 16]
    generator = DefaultAnchorGenerator(sizes=sizes, aspect_ratios=ratios, strides=strides, offset=offset)
    assert list(generator.num_anchors) == [6, 6]
    maps = [torch.zeros(2, 5, 3, 4), torch.zeros(2, 5, 2, 1)]
    for level, (found, level_map) in enumerate(zip(generator(maps), maps)):
        expected = []
        for row in range(level_map.shape[2]):
            for column in range(level_map.shape[3]):
                x, y = (column + offset) * strides[level], (row + offset) * strides[level]
                for size in sizes[level]:
                    for ratio in ratios:
                        width, height = size / math.sqrt(ratio), size * math.sqrt(ratio)
                        expected.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
        torch.testing.assert_close(found.tensor, torch.tensor(expected), atol=1e-4, rtol=0)


def test_one_list_of_sizes_serves_all_maps_and_nothing_is_saved():
    generator = DefaultAnchorGenerator(sizes=[[8.0, 16.0]], aspect_ratios=[[1.0]], strides=[4, 8, 16], offset=0.0)
    assert list(generator.num_anchors) == [2, 2, 2]
    assert not generator.state_dict()


@pytest.mark.parametrize("wrong", [{"sizes": [[8.0], [16.0]]}, {"aspect_ratios": []}, {"offset": 1.0}])
def test_anchor_settings_that_do_not_fit_are_refused(wrong):
    settings = {"sizes": [[8.0]], "aspect_ratios": [[1.0]], "strides": [4, 8, 16], "offset": 0.0, **wrong}
    with pytest.raises(WRONG_USE):
        DefaultAnchorGenerator(**settings)


def match_by_hand(quality, thresholds, labels, low_quality):
    matches, match_labels = [], []
    for column in range(quality.shape[1]):
        best = max(range(quality.shape[0]), key=lambda row: quality[row, column].item())
        matches.append(best)
        match_labels.append(labels[sum(quality[best, column].item() >= t for t in thresholds)])
    if low_quality:
        for row in quality:
            for column, value in enumerate(row):
                if value == row.max():
                    match_labels[column] = 1
    return matches, match_labels


@pytest.mark.parametrize("low_quality", [False, True])
def test_matcher_against_loops(low_quality):
    # Multiples of 1/8 are exact in float32: some lie on the thresholds, and rows have ties.
    quality = torch.randint(0, 9, (5, 60)) / 8
    matcher = Matcher([0.25, 0.75], [0, -1, 1], allow_low_quality_matches=low_quality)
    matches, labels = matcher(quality)
    expected_matches, expected_labels = match_by_hand(quality, [0.25, 0.75], [0, -1, 1], low_quality)
    best = quality[torch.tensor(expected_matches), torch.arange(60)]
    assert torch.equal(quality[matches, torch.arange(60)], best)
    assert labels.tolist() == expected_labels


def test_low_quality_matches_rescue_a_truth_without_any_good_anchor():
    quality = torch.tensor([[0.9, 0.1, 0.0], [0.0, 0.2, 0.1]])
    assert Matcher([0.3, 0.7], [0, -1, 1])(quality)[1].tolist() == [1, 0, 0]
    matches, labels = Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True)(quality)
    assert matches.tolist()[:2] == [0, 1] and labels.tolist() == [1, 1, 0]


def test_without_truth_all_is_background():
    matches, labels = Matcher([0.5], [0, 1], allow_low_quality_matches=True)(torch.zeros(0, 4))
    assert matches.tolist() == [0] * 4 and labels.tolist() == [0] * 4


@pytest.mark.parametrize(
    ("thresholds", "labels"), [([0.7, 0.3], [0, -1, 1]), ([0.5], [0, -1, 1]), ([0.5], [0, 2]), ([0.0], [0, 1])]
)
def test_matcher_settings_that_make_no_sense_are_refused(thresholds, labels):
    with pytest.raises(WRONG_USE):
        Matcher(thresholds, labels)


@pytest.mark.parametrize(
    ("positives", "negatives", "taken"),
    [(40, 100, (8, 24)), (3, 100, (3, 29)), (40, 5, (8, 5)), (0, 100, (0, 32)), (2, 3, (2, 3))],
)
def test_sampling_counts(positives, negatives, taken):
    labels = torch.tensor([1] * positives + [0] * negatives + [-1] * 7)[torch.randperm(positives + negatives + 7)]
    positive, negative = subsample_labels(labels, 32, 0.25, bg_label=0)
    assert (len(positive), len(negative)) == taken
    assert (labels[positive] == 1).all() and (labels[negative] == 0).all()
    assert len(set(positive.tolist())) == len(positive) and len(set(negative.tolist())) == len(negative)


def test_sampling_takes_every_candidate_equally_often():
    labels = torch.tensor([0] * 20)
    counts = sum(torch.bincount(subsample_labels(labels, 5, 0.5, 0)[1], minlength=20) for _ in range(2000))
    # Binomial with n = 2000, p = 1/4: mean 500, standard deviation 19; six of them leave no room for chance.
    assert (counts - 500).abs().max() < 120


def test_all_foreground_classes_are_positives():
    labels = torch.tensor([0, 3, 2, 7, -1, 7])
    positive, negative = subsample_labels(labels, 100, 0.5, bg_label=7)
    assert sorted(positive.tolist()) == [0, 1, 2] and sorted(negative.tolist()) == [3, 5]
