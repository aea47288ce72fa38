"""Layers, heads and models as the project builds them: names of weights, shapes, and construction from a config."""

import math

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_model
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from detectron2.modeling.backbone.vit import SimpleFeaturePyramid, get_vit_lr_decay_rate
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from detectron2.modeling.roi_heads import FastRCNNConvFCHead
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage


class Patches(Backbone):
    """A backbone of one convolution: 16 x 16 pixels to a vector."""

    def __init__(self, channels: int = 16):
        super().__init__()
        self.embed = torch.nn.Conv2d(3, channels, 16, stride=16)
        self._out_features = ["last_feat"]
        self._out_feature_channels = {"last_feat": channels}
        self._out_feature_strides = {"last_feat": 16}

    def forward(self, x):
        return {"last_feat": self.embed(x)}


def make_pyramid(**options) -> SimpleFeaturePyramid:
    settings = {"scale_factors": (4.0, 2.0, 1.0, 0.5), "top_block": LastLevelMaxPool(), **options}
    return SimpleFeaturePyramid(Patches(), in_feature="last_feat", out_channels=8, **settings)


@BACKBONE_REGISTRY.register()
def build_pyramid_of_patches(cfg, input_shape):
    return make_pyramid()


@pytest.fixture
def cfg():
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "GeneralizedRCNN"
    cfg.MODEL.BACKBONE.NAME = "build_pyramid_of_patches"
    cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
    cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
    cfg.MODEL.RPN.CONV_DIMS = [-1, -1]
    cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
    cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 5
    cfg.MODEL.ROI_BOX_HEAD.NAME = "FastRCNNConvFCHead"
    cfg.MODEL.ROI_BOX_HEAD.NUM_CONV = 2
    cfg.MODEL.ROI_BOX_HEAD.CONV_DIM = 12
    cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 1
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 32
    cfg.MODEL.ROI_BOX_HEAD.NORM = "LN"
    cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE = "ROIAlignV2"
    return cfg


@pytest.mark.parametrize("shape", [(2, 6, 5, 7), (3, 6, 1, 1), (0, 6, 7, 7)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_layer_norm_over_channels(shape, memory_format):
    norm = get_norm("LN", 6)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = (3 * torch.randn(shape) + 5).to(memory_format=memory_format)
    centred = x - x.mean(dim=1, keepdim=True)
    expected = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()
    expected = expected * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), expected, atol=1e-5, rtol=1e-5)


def test_names_of_norms():
    assert get_norm("", 4) is None
    assert isinstance(get_norm("BN", 4), torch.nn.BatchNorm2d)
    assert isinstance(get_norm("GN", 64), torch.nn.GroupNorm)
    with pytest.raises((KeyError, ValueError), match="XN"):
        get_norm("XN", 4)


def test_convolution_norm_and_activation_in_this_order():
    conv = Conv2d(2, 3, 3, padding=1, bias=False, norm=get_norm("LN", 3), activation=torch.nn.ReLU())
    assert set(conv.state_dict()) == {"weight", "norm.weight", "norm.bias"}
    x = torch.randn(1, 2, 4, 4)
    plain = torch.nn.functional.conv2d(x, conv.weight, padding=1)
    torch.testing.assert_close(conv(x), conv.norm(plain).relu())


@pytest.mark.parametrize("norm", ["LN", "BN"])
def test_pyramid_levels_and_names(norm):
    pyramid = make_pyramid(norm=norm, square_pad=64)
    shapes = pyramid.output_shape()
    assert {name: shape.stride for name, shape in shapes.items()} == {f"p{n}": 2**n for n in range(2, 7)}
    features = pyramid(torch.randn(2, 3, 64, 96))
    for name, shape in shapes.items():
        # A level of 3 columns at stride 32 gives 2 at stride 64.
        expected = (2, 8, math.ceil(64 / shape.stride), math.ceil(96 / shape.stride))
        assert features[name].shape == expected
    assert pyramid.padding_constraints["square_size"] == 64
    convolutions = {name for name in pyramid.state_dict() if "norm" not in name and name.endswith("weight")}
    assert convolutions == {
        *(f"simfp_2.{i}.weight" for i in (0, 1, 3, 4, 5)),
        *(f"simfp_3.{i}.weight" for i in (0, 1, 2)),
        *(f"simfp_4.{i}.weight" for i in (0, 1)),
        *(f"simfp_5.{i}.weight" for i in (1, 2)),
        "net.embed.weight",
    }


@pytest.mark.parametrize("scale_factors", [(4.0, 1.0), (1.0, 2.0), (8.0, 4.0)])
def test_pyramid_of_other_scales_is_refused(scale_factors):
    with pytest.raises((AssertionError, NotImplementedError, ValueError)):
        make_pyramid(scale_factors=scale_factors, top_block=None)


@pytest.mark.parametrize(("conv_dims", "names"), [([-1], {"conv"}), ([4, -1], {"conv.conv0", "conv.conv1"})])
def test_proposal_head_names_and_shapes(conv_dims, names):
    head = StandardRPNHead(in_channels=8, num_anchors=3, conv_dims=conv_dims)
    names = names | {"objectness_logits", "anchor_deltas"}
    assert {name.rsplit(".", 1)[0] for name in head.state_dict()} == names
    logits, deltas = head([torch.randn(2, 8, 4, 6), torch.randn(2, 8, 2, 3)])
    assert [tuple(level.shape) for level in logits] == [(2, 3, 4, 6), (2, 3, 2, 3)]
    assert [tuple(level.shape) for level in deltas] == [(2, 12, 4, 6), (2, 12, 2, 3)]
    assert head.objectness_logits.weight.std().item() == pytest.approx(0.01, rel=0.6)
    assert not any(p.any() for name, p in head.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize(
    ("conv_dims", "fc_dims", "names", "output"),
    [
        ([6], [10, 9], {"conv1", "conv1.norm", "fc1", "fc2"}, ShapeSpec(channels=9)),
        ([], [10], {"fc1"}, ShapeSpec(channels=10)),
        ([6, 5], [], {"conv1", "conv1.norm", "conv2", "conv2.norm"}, ShapeSpec(channels=5, height=7, width=7)),
    ],
)
def test_box_head_names_and_shapes(conv_dims, fc_dims, names, output):
    shape = ShapeSpec(channels=4, height=7, width=7)
    head = FastRCNNConvFCHead(shape, conv_dims=conv_dims, fc_dims=fc_dims, conv_norm="LN")
    assert {name.rsplit(".", 1)[0] for name in head.state_dict()} == names
    assert head.output_shape == output
    result = head(torch.randn(3, 4, 7, 7))
    assert result.shape == ((3, output.channels) if fc_dims else (3, output.channels, 7, 7))
    assert (result >= 0).all()


def test_learning_rate_falls_with_depth():
    def rate(name):
        return get_vit_lr_decay_rate(name, lr_decay_rate=0.5, num_layers=3)

    assert rate("backbone.net.pos_embed") == rate("backbone.net.patch_embed.proj.weight") == 0.5**4
    assert [rate(f"backbone.net.blocks.{i}.attn.qkv.weight") for i in range(3)] == [0.5**3, 0.5**2, 0.5]
    assert rate("backbone.simfp_2.0.weight") == rate("roi_heads.box_head.fc1.weight") == 1


def test_model_from_config_trains_and_detects(cfg):
    model = build_model(cfg)
    assert model.roi_heads.box_predictor.cls_score.out_features == 6
    assert {name.split(".")[0] for name in model.state_dict()} == {"backbone", "proposal_generator", "roi_heads"}
    target = Instances((96, 128), gt_boxes=Boxes([[10.0, 20, 60, 70]]), gt_classes=torch.tensor([4]))
    empty = Instances((64, 64), gt_boxes=Boxes([]), gt_classes=torch.zeros(0, dtype=torch.int64))
    inputs = [
        {"image": torch.randint(0, 256, (3, 96, 128), dtype=torch.uint8), "instances": target},
        {"image": torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8), "instances": empty},
    ]
    with EventStorage():
        losses = model(inputs)
    assert set(losses) == {"loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"}
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())
    with torch.no_grad():
        found = model.eval()([{**item, "height": 200, "width": 300} for item in inputs])
    assert all(f["instances"].image_size == (200, 300) for f in found)


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("layers", [(0, 2), (4, 1)])
def test_heads_from_config(cfg, agnostic, layers):
    cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = agnostic
    cfg.MODEL.ROI_BOX_HEAD.NUM_CONV, cfg.MODEL.ROI_BOX_HEAD.NUM_FC = layers
    model = build_model(cfg)
    head = model.roi_heads.box_head
    assert sum(isinstance(layer, Conv2d) for layer in head) == layers[0]
    assert sum(isinstance(layer, torch.nn.Linear) for layer in head) == layers[1]
    assert model.roi_heads.box_predictor.bbox_pred.out_features == (4 if agnostic else 20)


def test_unknown_backbone_is_named(cfg):
    cfg.MODEL.BACKBONE.NAME = "build_castle"
    with pytest.raises(KeyError, match="build_castle"):
        build_model(cfg)
