"""The reference detector of tests/golden (detector_128*) on a plain dense ViT that is written here, so that these
tests need nothing but Detectron2: the embedded part or the real one."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.config import get_cfg
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, GeneralizedRCNN, build_model
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.vit import SimpleFeaturePyramid
from detectron2.structures import Boxes, Instances
from torch import nn

SETTINGS = """
VERSION: 2
INPUT: {FORMAT: RGB}
MODEL:
  DEVICE: cpu
  PIXEL_MEAN: [123.675, 116.28, 103.53]
  PIXEL_STD: [58.395, 57.12, 57.375]
  BACKBONE: {NAME: build_reference_pyramid}
  ANCHOR_GENERATOR: {SIZES: [[8], [16], [32], [64], [128]]}
  RPN:
    IN_FEATURES: [p2, p3, p4, p5, p6]
    CONV_DIMS: [-1, -1]
    BATCH_SIZE_PER_IMAGE: 16384
    PRE_NMS_TOPK_TRAIN: 2000
    PRE_NMS_TOPK_TEST: 1000
    POST_NMS_TOPK_TRAIN: 1000
    POST_NMS_TOPK_TEST: 300
  ROI_HEADS:
    NAME: StandardROIHeads
    IN_FEATURES: [p2, p3, p4, p5]
    NUM_CLASSES: 4
    BATCH_SIZE_PER_IMAGE: 4096
  ROI_BOX_HEAD:
    NAME: FastRCNNConvFCHead
    POOLER_RESOLUTION: 7
    NUM_CONV: 2
    CONV_DIM: 64
    NUM_FC: 1
    FC_DIM: 128
    NORM: LN
"""


class PlainAttention(nn.Module):
    def __init__(self, dim: int, heads: int, side: int):
        super().__init__()
        self.heads, self.side = heads, side
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, dim // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, dim // heads))

    def forward(self, x):
        batch, tokens, dim = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y, x = (axis.flatten() for axis in torch.meshgrid(*[torch.arange(self.side)] * 2, indexing="ij"))
        rows = self.rel_pos_h[y[:, None] - y + self.side - 1]  # (tokens, tokens, dim / heads)
        columns = self.rel_pos_w[x[:, None] - x + self.side - 1]
        bias = torch.einsum("bhic,ijc->bhij", q, rows + columns)
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + bias).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, tokens, dim))


class PlainBlock(nn.Module):
    def __init__(self, dim: int, heads: int, side: int):
        super().__init__()
        self.side = side
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = PlainAttention(dim, heads, side)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, 4 * dim), "fc2": nn.Linear(4 * dim, dim)})

    def forward(self, x):  # (B, H, W, C), H and W multiples of the window's side
        batch, height, width, dim = x.shape
        windows = self.norm1(x).unflatten(2, (-1, self.side)).unflatten(1, (-1, self.side)).transpose(2, 3)
        attended = self.attn(windows.reshape(-1, self.side**2, dim)).view(windows.shape)
        x = x + attended.transpose(2, 3).reshape(x.shape)
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class PlainViT(Backbone):
    """The backbone of the reference detector: 8 x 8 tokens, one block on 4 x 4 windows, one global block."""

    def __init__(self, dim: int = 48, heads: int = 3, patch: int = 16):
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, patch, stride=patch)})
        self.pos_embed = nn.Parameter(torch.zeros(1, 37, dim))
        self.blocks = nn.ModuleList([PlainBlock(dim, heads, 4), PlainBlock(dim, heads, 8)])
        self._out_features = ["last_feat"]
        self._out_feature_channels = {"last_feat": dim}
        self._out_feature_strides = {"last_feat": patch}

    def forward(self, x):
        x = self.patch_embed["proj"](x)
        position = self.pos_embed[:, 1:].transpose(1, 2).unflatten(2, (6, 6))
        x = x + F.interpolate(position, size=x.shape[-2:], mode="bicubic", align_corners=False)
        x = x.permute(0, 2, 3, 1)
        for block in self.blocks:
            x = block(x)
        return {"last_feat": x.permute(0, 3, 1, 2)}


@BACKBONE_REGISTRY.register()
def build_reference_pyramid(cfg, input_shape):
    return SimpleFeaturePyramid(
        PlainViT(),
        in_feature="last_feat",
        out_channels=32,
        scale_factors=(4.0, 2.0, 1.0, 0.5),
        top_block=LastLevelMaxPool(),
        square_pad=128,
    )


@pytest.fixture
def detector_cfg(tmp_path):
    """The configuration of the reference detector."""
    (tmp_path / "detector.yaml").write_text(SETTINGS)
    cfg = get_cfg()
    cfg.merge_from_file(str(tmp_path / "detector.yaml"))
    return cfg


@pytest.fixture(scope="session")
def reference(golden) -> SimpleNamespace:
    """The stored numbers: ``outputs`` (tensors by name), ``weights`` (a state dict) and ``losses`` (from the json)."""
    outputs = np.load(golden / "detector_128_outputs.npz")
    weights = np.load(golden / "detector_128_weights.npz")
    return SimpleNamespace(
        outputs={name: torch.from_numpy(outputs[name]) for name in outputs},
        # The pixel statistics are stored too, but they are constructor arguments, not part of a state dict.
        weights={n: torch.from_numpy(weights[n]) for n in weights if not n.startswith("pixel_")},
        losses=json.loads((golden / "detector_128.json").read_text())["training_losses"],
    )


@pytest.fixture
def make_detector(reference, detector_cfg):
    """Builds the reference detector with its weights, for the box loss "giou" (weight 2) or "smooth_l1"."""

    def make(box_loss: str = "giou") -> GeneralizedRCNN:
        detector_cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE = box_loss
        detector_cfg.MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT = 2.0 if box_loss == "giou" else 1.0
        detector = build_model(detector_cfg)
        detector.load_state_dict(reference.weights, strict=True)
        return detector

    return make


@pytest.fixture
def training_inputs(reference):
    """One dict per image, as the training loader makes them."""
    return [
        {
            "image": reference.outputs[f"image{i}"],
            "instances": Instances(
                (128, 128),
                gt_boxes=Boxes(reference.outputs[f"gt_boxes{i}"]),
                gt_classes=reference.outputs[f"gt_classes{i}"].clone(),
            ),
        }
        for i in range(2)
    ]
