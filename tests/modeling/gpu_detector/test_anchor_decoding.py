import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes


def test_boxes_are_detectron2s(device):
    from eventful_vitdet.modeling.gpu_detector.anchor_decoding import decode

    transform = Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0))
    groups, anchors_of_group, best = 3, 50, 40
    corner = torch.rand(150, 2) * 80
    anchors = torch.cat([corner, corner + torch.rand(150, 2) * 40 + 1], dim=1)
    deltas = torch.randn(2, 150, 4) * 8
    scores = (torch.randn(2, groups, best) * 4).round() / 4
    places = torch.stack([torch.randperm(anchors_of_group)[:best] for _ in range(2 * groups)]).view(2, groups, best)
    firsts = torch.arange(groups) * anchors_of_group
    deltas[0, places[0, 0, 0]], deltas[0, places[0, 0, 1], 2] = torch.nan, 900.0
    deltas[1, places[1, 0, 2], 0] = -torch.inf
    scores[1, 0, 5], scores[1, 0, 6], scores[1, 2, 3:] = torch.nan, -torch.inf, -torch.inf
    places[1, 2, 3:] += 100  # what a group is filled up with
    sizes = [(70, 90), (96, 60)]
    limits = torch.tensor([[[w, h, w, h]] for h, w in sizes], dtype=torch.float32)
    arguments = [x.to(device) for x in (deltas, anchors, places, scores, firsts, limits)]
    boxes, in_order, allowed = decode(*arguments, transform.weights, transform.scale_clamp, 2.0)
    for image, size in enumerate(sizes):
        order = [row.nan_to_num(torch.inf).sort(descending=True, stable=True).indices for row in scores[image]]
        expected_scores = torch.cat([row[by] for row, by in zip(scores[image], order)])
        place = torch.cat([row[by] + first for row, by, first in zip(places[image], order, firsts)]).clamp(max=149)
        decoded = transform.apply_deltas(deltas[image, place], anchors[place])
        finite = decoded.isfinite().all(dim=1) & expected_scores.isfinite()
        expected = Boxes(decoded[finite])  # Detectron2 refuses to clip the others
        expected.clip(size)
        large = torch.zeros_like(finite)
        large[finite] = expected.nonempty(2.0)
        torch.testing.assert_close(in_order[image].cpu(), expected_scores, atol=0, rtol=0, equal_nan=True)
        assert torch.equal(allowed[image].cpu(), large)
        torch.testing.assert_close(boxes[image].cpu()[finite], expected.tensor, atol=1e-3, rtol=1e-5)
        assert large.any() and not finite.all()
