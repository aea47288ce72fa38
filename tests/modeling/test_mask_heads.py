"""Masks and cascades in the video detector: which masks are computed, whose operations they are, the eventful path."""

import copy

import cv2
import numpy as np
import pytest
import torch
from detectron2.modeling.postprocessing import detector_postprocess
from eventful_vit import TopR, count_operations
from eventful_vitdet.masks import NO_MASKS, MaskRequest, encode_mask, masks_requested, outline_mask, paste_mask
from eventful_vitdet.structures import Detections
from torch.utils.flop_counter import FlopCounterMode

MASKS = {
    "MODEL.MASK_ON": True,
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 1,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 8,
    "MODEL.ROI_MASK_HEAD.NORM": "LN",
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 4,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.2,
    "TEST.DETECTIONS_PER_IMAGE": 15,
}
CASCADE = {"MODEL.ROI_HEADS.NAME": "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True}
KINDS = {"standard": MASKS, "cascade": {**MASKS, **CASCADE}}


def frames_of(streams: int, number: int) -> list[dict]:
    """One frame of each stream; later ones differ in a corner."""
    batch = []
    for stream in range(streams):
        torch.manual_seed(stream)
        image = torch.randint(0, 256, (3, 96, 80 if stream else 96)).float()
        image[:, :32, :32] = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(number)) * 255
        batch.append({"image": image, "video_id": stream, "frame_id": number, "height": 120, "width": 100})
    return batch


@pytest.fixture(params=KINDS)
def model(request, tiny_model):
    return tiny_model(**KINDS[request.param])


@pytest.fixture
def head_macs(model, monkeypatch):
    """Filled with the MACs of the heads' convolutions and matrix products, by PyTorch's own counter."""
    macs = []

    def counted(run):
        def call(*args):
            with FlopCounterMode(display=False) as flops:
                result = run(*args)
            macs.append(flops.get_total_flops() // 2)
            return result

        return call

    for name in ("_forward_box", "_forward_mask"):
        monkeypatch.setattr(model.roi_heads, name, counted(getattr(model.roi_heads, name)))
    return macs


@torch.no_grad()
@pytest.mark.parametrize("request_", [None, MaskRequest(0.3, 9), NO_MASKS])
def test_operations_belong_to_the_stream_whose_frame_caused_them(model, head_macs, request_):
    batch = frames_of(3, 0)
    with masks_requested(model, request_):
        with count_operations(model) as counts:
            model(batch)
        heads = [counts.by_category(stream)["heads"] for stream in range(3)]
        assert counts.by_category()["heads"] == sum(heads)
        assert counts.by_category(3)["heads"] == 0
        assert sum(heads) == sum(head_macs)
        for stream, expected in enumerate(heads):
            model.reset()
            with count_operations(model) as alone:
                model([batch[stream]])
            assert alone.by_category(0)["heads"] == pytest.approx(expected, rel=0.02)


@torch.no_grad()
def test_masks_that_nobody_asks_for_cost_nothing(model):
    batch, costs = frames_of(1, 0), []
    for asked in (MaskRequest(), MaskRequest(per_image=5), NO_MASKS):
        model.reset()
        with masks_requested(model, asked), count_operations(model) as counts:
            (output,) = model(batch)
        costs.append(counts.by_category()["heads"])
    mask_head = model.roi_heads.mask_head
    side = 2 * 4
    per_mask = 16 * 16 * 9 * 8 + 16 * 8 * 8 * 4 + side * side * 8 * 3  # one convolution, the doubling, the predictor
    assert mask_head.predictor.out_channels == 3
    assert costs[1] - costs[2] == 5 * per_mask and costs[0] > costs[1]
    assert not output["instances"].has("box_masks") and not output["instances"].has("pred_masks")
    assert model.roi_heads.mask_on and model.mask_request is None


@torch.no_grad()
def test_asked_for_masks_are_those_of_detectron2(model):
    batch = frames_of(2, 0)
    plain = model(batch)
    model.reset()
    with masks_requested(model, MaskRequest(per_image=6)):
        asked = model(batch)
    for expected, found, frame in zip(plain, asked, batch):
        expected, detections = expected["instances"], Detections.from_instances(found["instances"], frame)
        assert torch.equal(found["instances"].pred_boxes.tensor, expected.pred_boxes.tensor)
        assert torch.isfinite(found["instances"].box_masks[:6]).all()
        assert torch.isnan(found["instances"].box_masks[6:]).all() and len(detections.masks) > 6
        assert expected.pred_masks.any() and not expected.pred_masks.all()
        for row in range(6):
            covered = paste_mask(detections.masks[row], detections.boxes[row], 120, 100)
            assert torch.equal(torch.from_numpy(covered), expected.pred_masks[row])
        assert not paste_mask(detections.masks[6], detections.boxes[6], 120, 100).any()


@torch.no_grad()
def test_other_threads_keep_their_masks(model, monkeypatch):
    """The heads that they share are never switched, not even while boxes are found."""
    found, forward_box = [], model.roi_heads._forward_box
    monkeypatch.setattr(
        model.roi_heads, "_forward_box", lambda *args: found.append(model.roi_heads.mask_on) or forward_box(*args)
    )
    with masks_requested(model, NO_MASKS):
        (output,) = model(frames_of(1, 0))
    assert found == [True] and not output["instances"].has("pred_masks")


def same(found, expected, tolerance=1e-3):
    found, expected = found["instances"], expected["instances"]
    assert torch.equal(found.pred_classes, expected.pred_classes)
    torch.testing.assert_close(found.scores, expected.scores, atol=tolerance, rtol=0)
    torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor, atol=50 * tolerance, rtol=0)
    assert (found.pred_masks != expected.pred_masks).float().mean() < tolerance


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_eventful_and_dense_agree_with_the_eventful_pyramid(tiny_model, kind):
    model = tiny_model(**KINDS[kind], **{"MODEL.EVENTFUL.PYRAMID.ENABLED": True, "MODEL.EVENTFUL.R": 36})
    dense = copy.deepcopy(model)
    dense.enabled = False
    for number in range(3):
        batch = frames_of(2, number)
        for found, expected in zip(model(batch), dense(batch)):
            same(found, expected)
    model.set_policy(TopR(4))
    with count_operations(model) as counts:
        model(frames_of(2, 3))
    later = counts.by_category()["pyramid"] + counts.by_category()["proposals"]
    counts_dense = dense_costs(dense, frames_of(2, 3))
    assert later < counts_dense


def dense_costs(dense, batch) -> int:
    with count_operations(dense) as counts:
        dense(batch)
    return counts.by_category()["pyramid"] + counts.by_category()["proposals"]


@torch.no_grad()
def test_masks_of_boxes_that_are_given(model):
    batch = frames_of(1, 0)
    (found,) = model.inference(batch, do_postprocess=False)
    given = found[:]
    given.pred_boxes = found.pred_boxes.clone()  # Detectron2's postprocessing changes them in place
    given.remove("pred_masks")
    expected = detector_postprocess(found, 120, 100)
    model.reset()
    (again,) = model.inference(batch, [given])
    torch.testing.assert_close(again["instances"].pred_masks, expected.pred_masks)


def test_run_lengths():
    mask = torch.zeros(3, 4, dtype=torch.bool)
    mask[1, 1:3] = True
    lengths = encode_mask(mask.numpy())
    assert (lengths.height, lengths.width) == (3, 4)
    assert lengths.as_coco() == {"size": [3, 4], "counts": lengths.counts.decode()}
    from pycocotools import mask as coco_mask

    assert (coco_mask.decode(lengths.as_coco()) == mask.numpy()).all()


def test_outlines_cover_what_masks_cover():
    rows, columns = np.mgrid[-1:1:28j, -1:1:28j]
    ring = (np.abs(np.hypot(rows, columns) - 0.65) < 0.25).astype(np.float32)
    box = np.array([20.0, 10.0, 180.0, 110.0], np.float32)
    polygons = [np.array(outline).reshape(-1, 2) for outline in outline_mask(ring, box)]
    assert len(polygons) == 2  # around it, and around its hole
    filled = np.zeros((120, 200), np.uint8)
    cv2.fillPoly(filled, [np.round(polygon).astype(np.int32) for polygon in polygons], 1)
    covered = paste_mask(ring, box, 120, 200)
    assert (filled.astype(bool) & covered).sum() / (filled.astype(bool) | covered).sum() > 0.93
    assert outline_mask(np.full((28, 28), np.nan, np.float32), box) == [] == outline_mask(0 * ring, box)
