"""The whole detector with our backbone against Detectron2's numbers in tests/golden (detector_128*)."""

import json

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from eventful_vitdet.config_files import build_cfg

OPTIONS = {
    "MODEL.DEVICE": "cpu",
    "MODEL.VIT.IMG_SIZE": 128,
    "MODEL.VIT.EMBED_DIM": 48,
    "MODEL.VIT.DEPTH": 2,
    "MODEL.VIT.NUM_HEADS": 3,
    "MODEL.VIT.WINDOW_SIZE": 4,
    "MODEL.VIT.WINDOW_BLOCKS": [0],
    "MODEL.VIT.PRETRAIN_IMG_SIZE": 96,
    "MODEL.SIMPLE_PYRAMID.OUT_CHANNELS": 32,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[8], [16], [32], [64], [128]],
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 16384,
    "MODEL.ROI_HEADS.NUM_CLASSES": 4,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 4096,
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 2,
    "MODEL.ROI_BOX_HEAD.CONV_DIM": 64,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 128,
    "MODEL.VIT.DROP_PATH_RATE": 0.0,
}


@pytest.fixture(scope="module")
def detector(golden, repository):
    options = [item for pair in OPTIONS.items() for item in pair]
    model = build_model(build_cfg(str(repository / "configs" / "Base-ViTDet.yaml"), options))
    weights = {name: torch.from_numpy(w) for name, w in np.load(golden / "detector_128_weights.npz").items()}
    for name in ("pixel_mean", "pixel_std"):
        assert torch.equal(weights.pop(name), getattr(model, name))
    model.load_state_dict(weights, strict=True)
    return model.eval()


@pytest.fixture(scope="module")
def outputs(golden):
    return dict(np.load(golden / "detector_128_outputs.npz"))


@pytest.mark.parametrize("enabled", [False, True])
@pytest.mark.parametrize("i", [0, 1])
def test_features_and_detections(detector, outputs, i, enabled):
    detector.enabled = enabled
    detector.reset()
    inputs = {"image": torch.from_numpy(outputs[f"image{i}"])}
    with torch.no_grad():
        features = detector.backbone(detector.preprocess_image([inputs]).tensor)
        detector.reset()
        found = detector([inputs])[0]["instances"]
    for level, feature in features.items():
        expected = torch.from_numpy(outputs[f"fpn{i}.{level}"])
        torch.testing.assert_close(feature[0], expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(found.pred_classes, torch.from_numpy(outputs[f"classes{i}"]))
    for ours, name, atol in (
        (found.scores, f"scores{i}", 1e-4),
        (found.pred_boxes.tensor, f"boxes{i}", 5e-3),
    ):
        torch.testing.assert_close(ours, torch.from_numpy(outputs[name]), atol=atol, rtol=0)


def test_losses(detector, outputs, golden):
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.events import EventStorage

    expected = json.loads((golden / "detector_128.json").read_text())["training_losses"]["giou"]["results"][
        "all_images"
    ]
    inputs = []
    for i in (0, 1):
        target = Instances((128, 128))
        target.gt_boxes = Boxes(torch.from_numpy(outputs[f"gt_boxes{i}"]))
        target.gt_classes = torch.from_numpy(outputs[f"gt_classes{i}"])
        inputs.append({"image": torch.from_numpy(outputs[f"image{i}"]), "instances": target})
    detector.train()
    try:
        with EventStorage():
            losses = detector(inputs)
    finally:
        detector.eval()
    for name, value in expected["losses"].items():
        assert losses[name].item() == pytest.approx(value, rel=1e-4), name
