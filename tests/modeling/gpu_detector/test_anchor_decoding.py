import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.structures import Boxes


def test_boxes_are_detectron2s(device):
    from eventful_vitdet.modeling.gpu_detector.anchor_decoding import decode

    transform = Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0))
    corner = torch.rand(150, 2) * 80
    anchors = torch.cat([corner, corner + torch.rand(150, 2) * 40 + 1], dim=1)
    deltas, scores = torch.randn(2, 150, 4) * 8, torch.randn(2, 140)
    places = torch.stack([torch.randperm(150)[:140] for _ in range(2)])
    deltas[0, places[0, 0]], deltas[0, places[0, 1], 2], deltas[1, places[1, 2], 0] = torch.nan, 900.0, -torch.inf
    scores[1, 5], scores[1, 6] = torch.nan, -torch.inf
    sizes = [(70, 90), (96, 60)]
    limits = torch.tensor([[[w, h, w, h]] for h, w in sizes], dtype=torch.float32)
    arguments = [x.to(device) for x in (deltas, anchors, places, scores, limits)]
    boxes, allowed = decode(*arguments, transform.weights, transform.scale_clamp, 2.0)
    for image, size in enumerate(sizes):
        decoded = transform.apply_deltas(deltas[image, places[image]], anchors[places[image]])
        finite = decoded.isfinite().all(dim=1) & scores[image].isfinite()
        expected = Boxes(decoded[finite])  # Detectron2 refuses to clip the others
        expected.clip(size)
        large = torch.zeros_like(finite)
        large[finite] = expected.nonempty(2.0)
        assert torch.equal(allowed[image].cpu(), large)
        torch.testing.assert_close(boxes[image].cpu()[finite], expected.tensor, atol=1e-3, rtol=1e-5)
    assert allowed[0, 1] and not allowed[0, 0] and not allowed[1, [2, 5, 6]].any()
