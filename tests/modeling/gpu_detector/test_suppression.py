"""Suppression with fixed sizes against torchvision's, which is exact on a CPU."""

import math

import numpy as np
import pytest
import torch
from torchvision.ops import nms


@pytest.fixture
def suppression(device):
    from eventful_vitdet.modeling.gpu_detector import suppression

    return suppression


def candidates(sizes, images=2, span=60.0):
    """Boxes (B, M, 4) and scores (B, M), best first in each group; many scores are equal, some boxes too."""
    generator = torch.Generator().manual_seed(0)
    boxes, scores = [], []
    for size in sizes:
        corner = torch.rand(images, size, 2, generator=generator) * span
        box = torch.cat([corner, corner + torch.rand(images, size, 2, generator=generator) * span / 2], dim=2)
        box[:, ::5] = box[:, :1].clone()
        box[:, 3::7, 2:] = box[:, 3::7, :2].clone()  # empty
        boxes.append(box)
        values = (torch.rand(images, size, generator=generator) * 20).round() / 20
        scores.append(values.sort(dim=1, descending=True).values)
    return torch.cat(boxes, dim=1), torch.cat(scores, dim=1)


def kept_by_torchvision(boxes, scores, groups, allowed, threshold) -> list[int]:
    """The places that stay, best first, of equal scores the earlier first."""
    found = []
    for group in groups.unique():
        places = ((groups == group) & allowed).nonzero().squeeze(1)
        found.append(places[nms(boxes[places], scores[places], threshold)])
    found = torch.cat(found).sort().values
    return found[scores[found].sort(descending=True, stable=True).indices].tolist()


@pytest.mark.parametrize(
    ("sizes", "threshold"),
    [
        ([70, 33, 1, 100], 0.5),
        ([64], 0.1),
        ([64], 0.7),
        ([1], 0.5),
        ([31, 32, 33], 0.7),
        # What is compared does not depend on the groups.
        *(pytest.param(sizes, threshold, marks=pytest.mark.long) for sizes, threshold in [
            ([70, 33, 1, 100], 0.1), ([70, 33, 1, 100], 0.7), ([64], 0.5), ([1], 0.1), ([1], 0.7),
            ([31, 32, 33], 0.1), ([31, 32, 33], 0.5),
        ]),
    ],
)  # fmt: skip
def test_groups(suppression, device, sizes, threshold):
    boxes, scores = candidates(sizes)
    allowed = torch.rand(scores.shape, generator=torch.Generator().manual_seed(1)) > 0.1
    groups = suppression.Groups(sizes, device)
    keep = suppression.suppress(boxes.to(device), allowed.to(device), groups, threshold)
    first = suppression.suppress(boxes.to(device), allowed.to(device), groups, threshold, most=9)
    levels = torch.repeat_interleave(torch.tensor(sizes))
    for image in range(len(boxes)):
        expected = kept_by_torchvision(boxes[image], scores[image], levels, allowed[image], threshold)
        assert sorted(expected) == keep[image].nonzero().squeeze(1).tolist()
        for level in levels.unique():
            of_level = [place for place in sorted(expected) if levels[place] == level]
            found = [place for place in first[image].nonzero().squeeze(1).tolist() if levels[place] == level]
            assert len(found) >= min(9, len(of_level)) and found == of_level[: len(found)]


def test_labels(suppression, device):
    boxes, scores = candidates([120])
    labels = torch.randint(0, 3, scores.shape, generator=torch.Generator().manual_seed(2))
    everything = torch.ones_like(labels, dtype=torch.bool)
    groups = suppression.Groups([120], device)
    keep = suppression.suppress(boxes.to(device), everything.to(device), groups, 0.5, labels.to(device))
    for image in range(len(boxes)):
        expected = kept_by_torchvision(boxes[image], scores[image], labels[image], everything[image], 0.5)
        assert sorted(expected) == keep[image].nonzero().squeeze(1).tolist()


def test_boxes_of_which_only_some_are_used(suppression, device):
    boxes, scores = candidates([120])
    groups, used = suppression.Groups([120], device), torch.tensor([37, 0], dtype=torch.int32)
    keep = suppression.suppress(boxes.to(device), None, groups, 0.5, used=used.to(device), most=200)
    expected = nms(boxes[0, :37], scores[0, :37], 0.5).sort().values.tolist()
    assert keep[0].nonzero().squeeze(1).tolist() == expected and not keep[1].any()


def test_boxes_that_are_not_allowed_do_nothing(suppression, device):
    box = torch.tensor([[[0.0, 0, 9, 9], [0, 0, 9, 9], [float("nan")] * 4, [0, 0, 9, 9]]]).to(device)
    allowed = torch.tensor([[False, True, False, True]]).to(device)
    keep = suppression.suppress(box, allowed, suppression.Groups([4], device), 0.5)
    assert keep.tolist() == [[False, True, False, False]]
    assert not suppression.suppress(box, torch.zeros_like(allowed), suppression.Groups([4], device), 0.5).any()


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_threshold_in_float32_lets_the_same_numbers_through(suppression, threshold):
    rounded = suppression.round_down(threshold)
    assert float(np.float32(rounded)) == rounded <= threshold < float(np.nextafter(np.float32(rounded), np.float32(2)))
    assert not math.isnan(rounded)
