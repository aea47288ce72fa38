"""Weights from elsewhere: a plain ViT's names (MAE), Detectron2's with other classes, other image sizes."""

import logging
import re

import pytest
import torch
import torch.nn.functional as F
from eventful_vitdet import EventfulViT
from eventful_vitdet.checkpoint import VideoCheckpointer
from eventful_vitdet.checkpoint_names import adapt_names, resize_absolute, square_grid
from eventful_vitdet.errors import CheckpointError
from torch import Tensor, nn

PREDICTOR = "roi_heads.box_predictor"


class Detector(nn.Module):
    """The names of a detector: a ViT of 16 channels with relative positions, a pyramid layer, a box predictor."""

    def __init__(self, classes: int = 3, side: int = 4, depth: int = 2, pretrain: int = 3, dim: int = 16) -> None:
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.net = EventfulViT(
            8 * side, 8, embed_dim=dim, depth=depth, num_heads=2, use_rel_pos=True, pretrain_img_size=8 * pretrain
        )
        self.backbone.simfp_2 = nn.Conv2d(dim, 4, 1)
        self.roi_heads = nn.Module()
        self.roi_heads.box_predictor = nn.ModuleDict(
            {"cls_score": nn.Linear(8, classes + 1), "bbox_pred": nn.Linear(8, 4 * classes)}
        )


def trained(**options) -> Detector:
    """A detector whose parameters are all random, the tables of relative positions too."""
    model = Detector(**options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


def plain_vit(model: Detector) -> dict[str, Tensor]:
    """The weights of a model's ViT as MAE's pre-training stores them: with a decoder, without relative positions."""
    weights = {name: value for name, value in model.backbone.net.state_dict().items() if "rel_pos" not in name}
    extras = ("cls_token", "mask_token", "norm.weight", "norm.bias", "decoder_embed.weight", "decoder_pos_embed")
    return {**weights, **{name: torch.ones(1) for name in (*extras, "decoder_blocks.0.attn.qkv.weight")}}


def load(model: Detector, content: dict, path, **options) -> None:
    torch.save(content, path / "w.pth")
    VideoCheckpointer(model, **{"complete": False, **options}).load(str(path / "w.pth"))


@pytest.mark.parametrize("wrap", ["model", "bare", "parallel"])
def test_names_of_mae(tmp_path, caplog, wrap):
    source, target = trained(), Detector()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    weights = plain_vit(source)
    if wrap == "parallel":
        weights = {f"module.{name}": value for name, value in weights.items()}
    with caplog.at_level(logging.INFO, logger="eventful_vitdet"):
        load(target, weights if wrap == "bare" else {"model": weights}, tmp_path)
    for name, value in target.state_dict().items():
        taken = name.startswith("backbone.net.") and "rel_pos" not in name
        assert torch.equal(value, source.state_dict()[name] if taken else before[name]), name
    loaded = [name for name in before if name.startswith("backbone.net.") and "rel_pos" not in name]
    assert f"checkpoint: {len(loaded)} of {len(before)} parameters loaded, 0 in the file unused" in caplog.text
    assert "left as they begin: backbone.net.blocks.0.attn.rel_pos_h, " in caplog.text
    assert "checkpoint: 7 without a use in a detector: cls_token, mask_token, norm.weight" in caplog.text
    assert caplog.text.count("decoder_embed") == 1
    assert f"not in the file: backbone.simfp_2.bias, backbone.simfp_2.weight, {PREDICTOR}" in caplog.text


def test_a_plain_vit_is_not_enough_for_an_evaluation(tmp_path):
    with pytest.raises(CheckpointError, match="Not in the file: backbone.net.blocks.0.attn.rel_pos_h"):
        load(Detector(), plain_vit(trained()), tmp_path, complete=True)


@pytest.mark.parametrize(
    "name",
    ["blocks.0.ls1.gamma", "blocks.1.attn.q_norm.weight", "register_tokens", "reg_token", "norm_pre.weight"],
)
def test_other_parts_of_a_plain_vit_are_refused(tmp_path, name):
    """They change what the ViT computes: without them it is another network, which would quietly be worse."""
    weights = {**plain_vit(trained()), name: torch.ones(16)}
    with pytest.raises(CheckpointError, match=f"backbone has parts that this model lacks: backbone.net.{name}"):
        load(Detector(), weights, tmp_path)


@pytest.mark.parametrize("complete", [True, False])
@pytest.mark.parametrize("name", ["backbone.net.blocks.0.ls2.gamma", "backbone.simfp_9.weight", "backbone.bottom_up.a"])
def test_other_parts_of_a_detectors_backbone_are_refused(tmp_path, name, complete):
    content = {**trained().state_dict(), name: torch.ones(16)}
    with pytest.raises(CheckpointError, match=f"backbone has parts that this model lacks: {name}"):
        load(Detector(), {"model": content}, tmp_path, complete=complete)


def test_relative_positions_that_the_model_does_not_use_are_refused(tmp_path):
    target = Detector()
    target.backbone.net = EventfulViT(32, 8, embed_dim=16, depth=2, num_heads=2, pretrain_img_size=24)
    with pytest.raises(CheckpointError, match="this model lacks: backbone.net.blocks.0.attn.rel_pos_h"):
        load(target, trained().state_dict(), tmp_path)


def test_other_heads_are_only_reported(tmp_path, caplog):
    content = {**trained().state_dict(), "roi_heads.mask_head.predictor.weight": torch.ones(16)}
    with caplog.at_level(logging.INFO, logger="eventful_vitdet"):
        load(Detector(), content, tmp_path, complete=True)
    assert "checkpoint, not used: roi_heads.mask_head.predictor.weight" in caplog.text


BLOCK = r"backbone\.net\.blocks\.(\d+)\."
PREFIXES = [
    "module.",
    "module.module.",
    "_orig_mod.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model.",
    "ema.module.",
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("plain", [True, False])
def test_prefixes_of_wrappers(tmp_path, caplog, prefix, plain):
    source, target = trained(), Detector()
    weights = plain_vit(source) if plain else source.state_dict()
    with caplog.at_level(logging.INFO, logger="eventful_vitdet"):
        load(target, {prefix + name: value for name, value in weights.items()}, tmp_path, complete=not plain)
    assert torch.equal(target.backbone.net.pos_embed, source.backbone.net.pos_embed)
    assert "0 in the file unused" in caplog.text
    if not plain:
        assert torch.equal(target.backbone.simfp_2.weight, source.backbone.simfp_2.weight)


@pytest.mark.parametrize("wrapper", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"])
def test_parts_that_were_wrapped(tmp_path, wrapper):
    source, target = trained(), Detector()
    content = {name.replace(".net.", f".net.{wrapper}."): value for name, value in source.state_dict().items()}
    load(target, content, tmp_path, complete=True)
    assert torch.equal(target.backbone.net.pos_embed, source.backbone.net.pos_embed)


def test_a_wrapped_detector_beside_other_modules(tmp_path, caplog):
    source, target = trained(), Detector()
    content = {f"model.{name}": value for name, value in source.state_dict().items()}
    with caplog.at_level(logging.INFO, logger="eventful_vitdet"):
        load(target, {"state_dict": {"criterion.weight": torch.ones(3), **content}}, tmp_path, complete=True)
    assert "names without their prefix 'model'" in caplog.text and "not used: criterion.weight" in caplog.text
    assert torch.equal(target.backbone.net.pos_embed, source.backbone.net.pos_embed)


def test_a_teacher_of_self_supervised_training(tmp_path):
    """As DINO stores it: student and teacher, each a ViT and a head."""
    source, target = trained(), Detector()
    vit = {name: value for name, value in plain_vit(source).items() if not name.startswith("decoder")}
    sets = [{**{f"backbone.{n}": v * k for n, v in vit.items()}, "head.mlp.0.weight": torch.ones(2)} for k in (0, 1)]
    load(target, {"student": sets[0], "teacher": sets[1], "epoch": 100}, tmp_path)
    assert torch.equal(target.backbone.net.pos_embed, source.backbone.net.pos_embed)
    load(target, {"student": sets[0], "teacher": sets[1], "epoch": 100}, tmp_path, weights_set="student")
    assert not target.backbone.net.pos_embed.any()


def test_a_refusal_names_what_was_found(tmp_path):
    with pytest.raises(CheckpointError) as caught:
        load(Detector(), {"stem.conv.weight": torch.ones(1), "layer1.0.weight": torch.ones(1)}, tmp_path)
    text = str(caught.value)
    assert "found names such as layer1.0.weight, stem.conv.weight" in text
    assert "expected names such as backbone.net.blocks.0.attn.proj.bias" in text


class TestAuthors:
    """Detectors that the paper's authors' script has converted. Names by their table, not by this project's code."""

    @pytest.fixture
    def full(self, tiny_model):
        """A detector with the pyramid of the paper, random in all parameters."""
        model = tiny_model(MODEL__SIMPLE_PYRAMID__SCALE_FACTORS=[4.0, 2.0, 1.0, 0.5])
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_()
        return model

    @staticmethod
    def converted(model: nn.Module) -> dict[str, Tensor]:
        """What the authors' script makes of a model: the class token's position goes, names become theirs."""
        rules = [
            (r"backbone\.net\.patch_embed\.proj\.", "embedding.conv."),
            (r"backbone\.net\.pos_embed", "backbone.position_encoding.encoding"),
            (BLOCK + r"norm1\.", r"backbone.blocks.\1.input_layer_norm."),
            (BLOCK + r"attn\.qkv\.", r"backbone.blocks.\1.qkv."),
            (BLOCK + r"attn\.rel_pos_h", r"backbone.blocks.\1.relative_position.y_embedding"),
            (BLOCK + r"attn\.rel_pos_w", r"backbone.blocks.\1.relative_position.x_embedding"),
            (BLOCK + r"attn\.proj\.", r"backbone.blocks.\1.projection."),
            (BLOCK + r"norm2\.", r"backbone.blocks.\1.mlp_layer_norm."),
            (BLOCK + r"mlp\.fc(\d)\.", r"backbone.blocks.\1.mlp_\2."),
            (r"backbone\.simfp_2\.([013])\.", r"pyramid.stages.0.\1."),
            (r"backbone\.simfp_2\.4\.norm", "pyramid.stages.0.5"),
            (r"backbone\.simfp_2\.4\.", "pyramid.stages.0.4."),
            (r"backbone\.simfp_2\.5\.norm", "pyramid.stages.0.7"),
            (r"backbone\.simfp_2\.5\.", "pyramid.stages.0.6."),
            (r"backbone\.simfp_3\.0\.", "pyramid.stages.1.0."),
            (r"backbone\.simfp_3\.1\.norm", "pyramid.stages.1.2"),
            (r"backbone\.simfp_3\.1\.", "pyramid.stages.1.1."),
            (r"backbone\.simfp_3\.2\.norm", "pyramid.stages.1.4"),
            (r"backbone\.simfp_3\.2\.", "pyramid.stages.1.3."),
            (r"backbone\.simfp_4\.0\.norm", "pyramid.stages.2.1"),
            (r"backbone\.simfp_4\.0\.", "pyramid.stages.2.0."),
            (r"backbone\.simfp_4\.1\.norm", "pyramid.stages.2.3"),
            (r"backbone\.simfp_4\.1\.", "pyramid.stages.2.2."),
            (r"backbone\.simfp_5\.1\.norm", "pyramid.stages.3.2"),
            (r"backbone\.simfp_5\.1\.", "pyramid.stages.3.1."),
            (r"backbone\.simfp_5\.2\.norm", "pyramid.stages.3.4"),
            (r"backbone\.simfp_5\.2\.", "pyramid.stages.3.3."),
        ]
        weights = {}
        for name, value in model.state_dict().items():
            for rule, replacement in rules:
                if re.match(rule, name):
                    name = re.sub(rule, replacement, name)
                    break
            weights[name] = (value[:, 1:] if name.startswith("backbone.position") else value).clone()
        return weights

    def test_everything_is_loaded(self, full, tiny_model, tmp_path, caplog):
        weights = self.converted(full)
        assert not any(name.startswith(("backbone.net", "backbone.simfp")) for name in weights)
        before = {name: value.clone() for name, value in full.state_dict().items()}
        with torch.no_grad():
            for parameter in full.parameters():
                parameter.zero_()
        with caplog.at_level(logging.INFO, logger="eventful_vitdet"):
            load(full, weights, tmp_path, complete=True)
        assert f"{len(before)} of {len(before)} parameters loaded, 0 in the file unused" in caplog.text
        assert "the names of the paper's authors" in caplog.text
        for name, value in full.state_dict().items():
            if name == "backbone.net.pos_embed":
                assert torch.equal(value[:, 1:], before[name][:, 1:])
            else:
                assert torch.equal(value, before[name]), name

    def test_a_vit_b_has_as_many_names_as_their_file(self):
        names = [f"backbone.blocks.{i}.{part}" for i in range(12) for part in self.block_parts()]
        adapted, _ = adapt_names(dict.fromkeys(names, torch.zeros(1)), {})
        # 12 blocks of 14, beside 3 of embedding and positions and 32 of the pyramid: 203.
        assert len(adapted) == 168 and all(name.startswith("backbone.net.blocks.") for name in adapted)

    @staticmethod
    def block_parts() -> list[str]:
        layers = ["input_layer_norm", "qkv", "projection", "mlp_layer_norm", "mlp_1", "mlp_2"]
        tables = [f"relative_position.{axis}_embedding" for axis in "xy"]
        return [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")] + tables

    def test_what_is_unknown_is_refused(self, full, tmp_path):
        weights = {**self.converted(full), "backbone.blocks.0.gate.weight": torch.ones(1)}
        with pytest.raises(CheckpointError, match="this model lacks: backbone.blocks.0.gate.weight"):
            load(full, weights, tmp_path, complete=True)


def resized_grid(positions: Tensor, old: int, new: int) -> Tensor:
    """Positions (1, old * old, D) of a grid, interpolated as images are; written without the project's code."""
    image = positions.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    image = F.interpolate(image, size=(new, new), mode="bicubic", align_corners=False)
    return image.permute(0, 2, 3, 1).reshape(1, new * new, -1)


@pytest.mark.parametrize("token", [True, False])
def test_positions_of_another_grid(tmp_path, caplog, token):
    source, target = trained(pretrain=5), Detector(pretrain=3)
    weights = plain_vit(source)
    grid = weights["pos_embed"][:, 1:].clone()
    first = weights["pos_embed"][:, :1].clone() if token else torch.zeros(1, 1, 16)
    if not token:
        weights["pos_embed"] = grid
    with caplog.at_level(logging.INFO, logger="eventful_vitdet"):
        load(target, weights, tmp_path)
    expected = torch.cat([first, resized_grid(grid, 5, 3)], dim=1)
    torch.testing.assert_close(target.backbone.net.pos_embed.data, expected, atol=1e-6, rtol=0)
    found = "(1, 26, 16)" if token else "(1, 25, 16)"
    assert f"positions resized for this model: backbone.net.pos_embed from {found} to (1, 10, 16)" in caplog.text


def test_positions_of_the_same_grid_without_a_class_token(tmp_path):
    source, target = trained(), Detector()
    weights = plain_vit(source)
    weights["pos_embed"] = weights["pos_embed"][:, 1:].clone()
    load(target, weights, tmp_path)
    assert torch.equal(target.backbone.net.pos_embed[:, 1:], source.backbone.net.pos_embed[:, 1:])


def test_half_precision_positions_stay_so():
    assert resize_absolute(torch.randn(1, 26, 4).half(), 10).dtype == torch.float16


@pytest.mark.parametrize(
    ("length", "expected"), [(197, (True, 14)), (196, (False, 14)), (1, (False, 1)), (2, (True, 1)), (15, (False, 0))]
)
def test_grids(length, expected):
    assert square_grid(length) == expected


@pytest.mark.parametrize("change", ["width", "not square"])
def test_positions_that_cannot_be_resized(tmp_path, change):
    weights = plain_vit(trained())
    weights["pos_embed"] = torch.zeros(1, 10, 24) if change == "width" else torch.zeros(1, 15, 16)
    with pytest.raises(CheckpointError, match="Other shape: backbone.net.pos_embed"):
        load(Detector(), weights, tmp_path)


@pytest.mark.parametrize("complete", [True, False])
def test_tables_of_another_image_size_give_what_the_larger_model_computes(tmp_path, complete):
    source, target = trained(side=4).eval(), Detector(side=3).eval()
    load(target, {"model": source.state_dict()}, tmp_path, complete=complete)
    assert target.backbone.net.blocks[0].attn.rel_pos_h.shape == (5, 8)
    image = torch.randn(1, 3, 24, 24)
    for model in (source, target):
        model.backbone.net.enabled = False
    with torch.no_grad():
        expected, got = (model.backbone.net(image)["last_feat"] for model in (source, target))
    torch.testing.assert_close(got, expected)


def test_weights_of_other_classes_need_to_be_asked_for(tmp_path):
    source, target = trained(classes=80), Detector(classes=30)
    with pytest.raises(CheckpointError) as caught:
        load(target, {"model": source.state_dict()}, tmp_path)
    text = str(caught.value)
    assert f"{PREDICTOR}.cls_score.weight (file (81, 8), model (31, 8))" in text
    assert f"MODEL.REINITIALIZE \"['{PREDICTOR}']\"" in text


def test_weights_of_other_classes_with_a_fresh_predictor(tmp_path, caplog):
    source, target = trained(classes=80), Detector(classes=30)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with caplog.at_level(logging.INFO, logger="eventful_vitdet"):
        load(target, {"model": source.state_dict()}, tmp_path, reinitialize=[PREDICTOR])
    for name, value in target.state_dict().items():
        assert torch.equal(value, (before if name.startswith(PREDICTOR) else source.state_dict())[name]), name
    assert f"re-initialised as MODEL.REINITIALIZE asks: {PREDICTOR}.bbox_pred.bias" in caplog.text
    assert "0 in the file unused" in caplog.text


def test_a_part_to_start_afresh_has_to_exist(tmp_path):
    with pytest.raises(CheckpointError, match="MODEL.REINITIALIZE: no parameter's name begins with 'roi_head.box'"):
        load(Detector(), {"model": trained().state_dict()}, tmp_path, reinitialize=["roi_head.box"])


def test_the_key_takes_names_alone(tmp_path):
    with pytest.raises(CheckpointError, match="MODEL.REINITIALIZE: no parameter's name begins with 1"):
        load(Detector(), {"model": trained().state_dict()}, tmp_path, reinitialize=[1])


def test_a_vit_by_itself_keeps_its_names(tmp_path):
    source, target = trained().backbone.net, Detector().backbone.net
    load(target, source.state_dict(), tmp_path, complete=True)
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in target.state_dict().items())


def test_an_empty_table_is_another_shape(tmp_path):
    weights = trained().state_dict()
    weights["backbone.net.blocks.0.attn.rel_pos_h"] = torch.zeros(0, 8)
    with pytest.raises(CheckpointError, match="Other shape: backbone.net.blocks.0.attn.rel_pos_h"):
        load(Detector(), weights, tmp_path)


def test_a_file_with_fewer_blocks(tmp_path):
    with pytest.raises(CheckpointError, match="Not in the file: backbone.net.blocks.2.attn.proj.bias"):
        load(Detector(depth=3), plain_vit(trained(depth=2)), tmp_path)


def test_the_address_that_detectron2_writes(tmp_path):
    source, target = trained(), Detector()
    torch.save({"model": plain_vit(source)}, tmp_path / "w.pth")
    VideoCheckpointer(target, complete=False).load(f"{tmp_path / 'w.pth'}?matching_heuristics=True")
    assert torch.equal(target.backbone.net.pos_embed, source.backbone.net.pos_embed)
