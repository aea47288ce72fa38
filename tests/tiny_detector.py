"""A detector that takes milliseconds a frame, for tests of whatever runs one."""

from __future__ import annotations

from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from eventful_vitdet.config_files import build_cfg
from torch import nn

SETTINGS = {
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
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 1,
    "MODEL.ROI_BOX_HEAD.CONV_DIM": 16,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
    "INPUT.MIN_SIZE_TEST": 0,
}
"""On top of Base-ViTDet.yaml."""


def make_cfg(repository: Path, **settings: object) -> CfgNode:
    """Its configuration; `settings` are further keys, with __ for each dot."""
    named = {**SETTINGS, **{key.replace("__", "."): value for key, value in settings.items()}}
    options = [item for pair in named.items() for item in pair]
    return build_cfg(str(repository / "configs" / "Base-ViTDet.yaml"), options)


def make_model(cfg: CfgNode) -> nn.Module:
    """A model that has the same weights every time: larger ones than at the start of training, so that frames and boxes
    differ visibly."""
    torch.manual_seed(3)
    model = build_model(cfg).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "bbox" not in name and "deltas" not in name:
                parameter.mul_(3)
    return model
