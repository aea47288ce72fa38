import pytest
import torch
from detectron2.modeling.box_regression import Box2BoxTransform


@pytest.mark.parametrize("boxes_per_region", [1, 5])
def test_boxes_and_candidates(device, boxes_per_region):
    from eventful_vitdet.modeling.gpu_detector.region_decisions import decide

    transform, classes, regions = Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0)), 5, 9
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, regions, 2, generator=generator) * 80
    proposals = torch.cat([corner, corner + torch.rand(2, regions, 2, generator=generator) * 40 + 1], dim=2)
    wide = torch.randn(2 * regions, 4 * boxes_per_region + 3, generator=generator) * 8
    deltas = wide[:, 3:]  # rows do not follow upon each other
    scores = torch.randn(2 * regions, classes + 1, generator=generator).softmax(1)
    scores[3, -1], deltas[4, 0], deltas[5, 2] = torch.nan, -torch.inf, torch.nan
    count = torch.tensor([regions, 6], dtype=torch.int32)
    arguments = [x.to(device) for x in (scores, wide, proposals, count)]
    arguments[1] = arguments[1][:, 3:]
    boxes, known, pairs, wanted = decide(*arguments, 0.1, transform.weights, transform.scale_clamp)
    expected = transform.apply_deltas(deltas, proposals.flatten(0, 1))
    torch.testing.assert_close(boxes.cpu().flatten(0, 1), expected, atol=1e-3, rtol=1e-5, equal_nan=True)
    is_known = torch.ones(2 * regions, dtype=torch.bool)
    is_known[3:6] = is_known[regions + 6 :] = False
    scores[~is_known] = -1.0
    assert torch.equal(known.cpu().flatten(0, 1), scores)
    assert torch.equal(pairs.cpu().view(-1, classes), scores[:, :-1])
    assert torch.equal(wanted.cpu().view(-1, classes), scores[:, :-1] > 0.1)
