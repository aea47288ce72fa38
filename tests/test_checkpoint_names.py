"""Weights from elsewhere: a plain ViT's names (MAE), Detectron2's with other classes, other image sizes."""

import logging

import pytest
import torch
import torch.nn.functional as F
from eventful_vitdet import EventfulViT
from eventful_vitdet.checkpoint import VideoCheckpointer
from eventful_vitdet.checkpoint_names import resize_absolute, square_grid
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
    assert "checkpoint, 7 without a use in a detector: cls_token, mask_token, norm.weight" in caplog.text
    assert caplog.text.count("decoder_embed") == 1
    assert f"not in the file: backbone.simfp_2.bias, backbone.simfp_2.weight, {PREDICTOR}" in caplog.text


def test_a_plain_vit_is_not_enough_for_an_evaluation(tmp_path):
    with pytest.raises(CheckpointError, match="Not in the file: backbone.net.blocks.0.attn.rel_pos_h"):
        load(Detector(), plain_vit(trained()), tmp_path, complete=True)


def test_other_parts_of_a_plain_vit_are_reported(tmp_path, caplog):
    # A layer scale changes what a block computes: a ViT with one is not the same network.
    weights = {**plain_vit(trained()), "blocks.0.ls1.gamma": torch.ones(16)}
    with caplog.at_level(logging.WARNING, logger="eventful_vitdet"):
        load(Detector(), weights, tmp_path)
    assert "checkpoint, not used: backbone.net.blocks.0.ls1.gamma" in caplog.text


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
    assert f"started afresh as MODEL.REINITIALIZE asks: {PREDICTOR}.bbox_pred.bias" in caplog.text
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
