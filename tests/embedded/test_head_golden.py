"""Mask and cascade heads against numbers computed with Detectron2 0.6 (tests/golden/make_heads.py)."""

import json

import numpy as np
import pytest
import torch

from . import head_cases


@pytest.fixture(scope="module")
def data(golden):
    with np.load(golden / "heads_128.npz") as file:
        return {name: file[name] for name in file}


@pytest.fixture(scope="module")
def numbers(golden):
    return json.loads((golden / "heads_128.json").read_text())


@pytest.fixture(params=head_cases.CASES)
def case(request):
    return request.param


@pytest.fixture
def heads(case, data):
    prefix = f"{case}.weights."
    weights = {n.removeprefix(prefix): torch.from_numpy(v).float() for n, v in data.items() if n.startswith(prefix)}
    heads = head_cases.build_heads(case)
    heads.load_state_dict(weights, strict=True)
    return heads


def test_detections_and_masks(heads, case, data):
    found = head_cases.detect(heads, data)
    for image in range(2):
        expected = {name: data[f"{case}.{name}{image}"] for name in ("boxes", "scores", "classes", "masks", "pasted")}
        assert np.array_equal(found[f"classes{image}"], expected["classes"])
        np.testing.assert_allclose(found[f"scores{image}"], expected["scores"], atol=5e-5)
        np.testing.assert_allclose(found[f"boxes{image}"], expected["boxes"], atol=1e-3)
        np.testing.assert_allclose(found[f"masks{image}"], expected["masks"], atol=1e-4)
        different = np.unpackbits(found[f"pasted{image}"] ^ expected["pasted"]).mean()
        assert different < 1e-5, f"{different:.1e} of the pixels differ"


@pytest.mark.parametrize("kind", ["polygon", "bitmask"])
def test_losses_statistics_and_gradients(heads, case, data, numbers, kind):
    found, expected = head_cases.train(heads, data, kind), numbers[case][kind]
    assert found["losses"] == pytest.approx(expected["losses"], rel=1e-4)
    assert found["statistics"] == pytest.approx(expected["statistics"], rel=1e-6)
    assert found["gradients"] == pytest.approx(expected["gradients"], rel=1e-3, abs=1e-6)


def test_images_without_objects_have_a_mask_loss_of_zero(data):
    heads = head_cases.build_heads("standard").train()
    targets = [target[:0] for target in head_cases.targets(data, "polygon")]
    with head_cases.EventStorage():
        features, proposals = head_cases.features(data), head_cases.proposals(data)
        _, losses = heads(head_cases.no_images(), features, proposals, targets)
    assert losses["loss_mask"].item() == 0
    losses["loss_mask"].backward()
    assert heads.mask_head.deconv.weight.grad is not None


@torch.no_grad()
def test_masks_of_given_boxes(data):
    heads = head_cases.build_heads("standard").eval()
    features = head_cases.features(data)
    found, _ = heads(head_cases.no_images(), features, head_cases.proposals(data), None)
    masks = [image.pred_masks.clone() for image in found]
    for image in found:
        image.remove("pred_masks")
    again = heads.forward_with_given_boxes(features, found)
    assert all(torch.equal(image.pred_masks, before) for image, before in zip(again, masks))


@torch.no_grad()
def test_no_detections_no_masks(data):
    heads = head_cases.build_heads("standard").eval()
    heads.box_predictor.test_score_thresh = 1.0
    outputs = head_cases.detect(heads, data)
    assert outputs["masks0"].shape == (0, 28, 28) and not len(outputs["pasted0"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", False], "CLS_AGNOSTIC_BBOX_REG must be True"),
        (["MODEL.ROI_BOX_CASCADE_HEAD.IOUS", [0.5, 0.6]], "2 IOUS and 3 BBOX_REG_WEIGHTS"),
        (["MODEL.ROI_HEADS.IOU_THRESHOLDS", [0.4]], "IOUS begins with 0.5"),
    ],
)
def test_settings_that_are_no_cascade(changes, message):
    if not hasattr(head_cases.CascadeROIHeads, "_as_proposals"):
        pytest.skip("the real Detectron2 has assertions of its own")
    cfg = head_cases.head_cfg("cascade")
    cfg.merge_from_list(changes)
    shapes = {name: head_cases.ShapeSpec(channels=8, stride=stride) for name, stride in head_cases.STRIDES.items()}
    with pytest.raises(ValueError, match=message):
        head_cases.CascadeROIHeads(cfg, shapes)
