"""A detector small enough to run in milliseconds."""

import pytest
import torch
from detectron2.modeling import build_model
from eventful_vitdet.config_files import build_cfg

TINY = {
    "MODEL.DEVICE": "cpu",
    "MODEL.VIT.IMG_SIZE": 96,
    "MODEL.VIT.PATCH_SIZE": 16,
    "MODEL.VIT.EMBED_DIM": 24,
    "MODEL.VIT.DEPTH": 2,
    "MODEL.VIT.NUM_HEADS": 2,
    "MODEL.VIT.WINDOW_SIZE": 3,
    "MODEL.VIT.WINDOW_BLOCKS": [0],
    "MODEL.VIT.PRETRAIN_IMG_SIZE": 64,
    "MODEL.SIMPLE_PYRAMID.SCALE_FACTORS": [2.0, 1.0, 0.5],
    "MODEL.SIMPLE_PYRAMID.OUT_CHANNELS": 16,
    "MODEL.EVENTFUL.R": 6,
    "MODEL.ANCHOR_GENERATOR.SIZES": [[16], [32], [64]],
    "MODEL.RPN.IN_FEATURES": ["p3", "p4", "p5"],
    "MODEL.RPN.POST_NMS_TOPK_TEST": 20,
    "MODEL.ROI_HEADS.IN_FEATURES": ["p3", "p4", "p5"],
    "MODEL.ROI_HEADS.NUM_CLASSES": 3,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 1,
    "MODEL.ROI_BOX_HEAD.CONV_DIM": 16,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
    "INPUT.MIN_SIZE_TEST": 0,
}


@pytest.fixture
def tiny_cfg(repository):
    def make(**overrides):
        settings = {**TINY, **{key.replace("__", "."): value for key, value in overrides.items()}}
        options = [item for pair in settings.items() for item in pair]
        return build_cfg(str(repository / "configs" / "Base-ViTDet.yaml"), options)

    return make


@pytest.fixture
def tiny_model(tiny_cfg):
    def make(**overrides):
        torch.manual_seed(3)
        model = build_model(tiny_cfg(**overrides)).eval()
        with torch.no_grad():
            # Larger weights than at the start of training, so that frames and boxes differ visibly.
            for name, parameter in model.named_parameters():
                if parameter.ndim > 1 and "bbox" not in name and "deltas" not in name:
                    parameter.mul_(3)
        return model

    return make
