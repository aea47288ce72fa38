"""The best candidates in their order against a stable sort."""

import pytest
import torch


@pytest.fixture
def ranking(device):
    from eventful_vitdet.modeling.gpu_detector import ranking

    return ranking


def candidates(count, images=3):
    """Scores, of which many are equal, which of them are wanted, boxes, and labels. The last image wants none."""
    generator = torch.Generator().manual_seed(0)
    scores = (torch.rand(images, count, generator=generator) * 20).round() / 20
    wanted = torch.rand(images, count, generator=generator) > 0.4
    wanted[-1] = False
    scores[0, 3], wanted[0, 3] = torch.nan, False
    scores[0, 4], wanted[0, 4] = -torch.inf, False
    boxes = torch.rand(images, count, 4, generator=generator) * 90 - 20
    return scores, wanted, boxes, torch.randint(0, 9, (images, count), generator=generator)


def order_of(scores, wanted) -> torch.Tensor:
    places = wanted.nonzero().squeeze(1)
    return places[scores[places].sort(descending=True, stable=True).indices]


SORTED_FIRST, IN_ONE_LAUNCH = 0, 2**29


@pytest.mark.parametrize(
    ("pairs", "count", "most"),
    [
        (IN_ONE_LAUNCH, 700, 60),
        (IN_ONE_LAUNCH, 700, 700),  # never sorted first
        (IN_ONE_LAUNCH, 20, 1),
        (IN_ONE_LAUNCH, 20, 0),
        (SORTED_FIRST, 700, 60),
        (SORTED_FIRST, 20, 1),
        (SORTED_FIRST, 20, 0),
    ],
)
def test_order(ranking, device, monkeypatch, pairs, count, most):
    monkeypatch.setattr(ranking, "MOST_PAIRS", pairs)
    if device.type == "cpu":  # as many pieces of fewer candidates
        count, most = (140 if n == 700 else n for n in (count, most))
        monkeypatch.setattr(ranking, "CHUNK", 64)
    scores, wanted, boxes, labels = candidates(count)
    found = ranking.best(scores.to(device), wanted.to(device), boxes.to(device), most, labels=labels.to(device))
    if most:
        assert found.numbers[1].tolist() == wanted.sum(1).tolist()
    for image in range(len(scores)):
        order = order_of(scores[image], wanted[image])[:most]
        size = int(found.count[image])
        assert size == len(order)
        assert torch.equal(found.scores[image, :size].cpu(), scores[image, order])
        assert torch.equal(found.boxes[image, :size].cpu(), boxes[image, order])
        assert torch.equal(found.labels[image, :size].cpu(), labels[image, order])
        assert not found.scores[image, size:].any() and not found.boxes[image, size:].any()


@pytest.mark.parametrize("pairs", [SORTED_FIRST, IN_ONE_LAUNCH], ids=["sorted first", "in one launch"])
@pytest.mark.parametrize("has_box_per_class", [False, True])
def test_classes_and_places(ranking, device, monkeypatch, pairs, has_box_per_class):
    monkeypatch.setattr(ranking, "MOST_PAIRS", pairs)
    from eventful_vitdet.modeling.gpu_detector.image_sizes import ImageSizes

    classes, count = 7, 140
    scores, wanted, boxes, _ = candidates(count)
    if not has_box_per_class:
        boxes = boxes[:, : count // classes].contiguous()
    boxes.abs_()
    boxes[..., 2:] += boxes[..., :2] + 1
    boxes[1] -= 500  # all of them vanish
    limits = torch.tensor([[50.0, 40, 50, 40], [60, 60, 60, 60], [9, 9, 9, 9]])[:, None]
    sizes = ImageSizes(*(x.to(device) for x in (limits, torch.full_like(limits, 0.5), limits / 2)))
    found = ranking.best(
        scores.to(device), wanted.to(device), boxes.to(device), 30, classes=classes, clip=sizes, place=sizes
    )
    whether = []
    for image in range(len(scores)):
        order = order_of(scores[image], wanted[image])[:30]
        size = int(found.count[image])
        expected = boxes[image, order if has_box_per_class else order // classes]
        expected = torch.minimum(expected.clamp(min=0), limits[image])
        assert torch.equal(found.labels[image, :size].cpu(), order % classes)
        assert torch.equal(found.boxes[image, :size].cpu(), expected)
        assert torch.equal(found.placed[image, :size].cpu(), expected / 2)
        whether.append(int((expected[:, 2:] <= expected[:, :2]).any()))
    assert found.numbers[2].tolist() == whether and whether[1:] == [1, 0]


def test_memory_holds_all_of_it(ranking, device):
    scores, wanted, boxes, labels = (x.to(device) for x in candidates(50))
    found = ranking.best(scores, wanted, boxes, 11, labels=labels)
    copied = ranking.Best.within(found.memory.clone(), 3, 11)
    found.memory.zero_()
    again = ranking.best(scores, wanted, boxes, 11, labels=labels)
    for name in ("boxes", "labels", "scores", "numbers"):
        assert torch.equal(getattr(copied, name), getattr(again, name))
