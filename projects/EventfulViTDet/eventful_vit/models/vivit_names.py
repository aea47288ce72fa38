"""Weights of a factorised ViViT under the names of others: TAdaConv's model zoo and the paper's authors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from .vivit import Grid, resize_class_positions

_TADACONV_PARTS = {
    "norm": "norm1",
    "attn.to_qkv": "attn.qkv",
    "attn.proj": "attn.proj",
    "norm_ffn": "norm2",
    "ffn.net.0": "mlp.fc1",
    "ffn.net.3": "mlp.fc2",
}
_AUTHORS_PARTS = {
    "input_layer_norm": "norm1",
    "qkv": "attn.qkv",
    "projection": "attn.proj",
    "mlp_layer_norm": "norm2",
    "mlp_1": "mlp.fc1",
    "mlp_2": "mlp.fc2",
}
_TADACONV = {
    "backbone.stem.conv1": "embedding.proj",
    "backbone.cls_token": "spatial.class_token",
    "backbone.pos_embd": "spatial.pos_embed",
    "backbone.norm": "spatial.norm",
    "backbone.cls_token_out": "temporal.class_token",
    "backbone.temp_embd": "temporal.pos_embed",
    "backbone.norm_out": "temporal.norm",
    "head.linear": "heads.0",
    "head.linear1": "heads.0",
    "head.linear2": "heads.1",
}
_AUTHORS = {
    "embedding.conv": "embedding.proj",
    "spatial_model.class_token": "spatial.class_token",
    "spatial_model.backbone.position_encoding.encoding": "spatial.pos_embed",
    "spatial_model.layer_norm": "spatial.norm",
    "temporal_model.class_token": "temporal.class_token",
    "temporal_model.backbone.position_encoding.encoding": "temporal.pos_embed",
    "temporal_model.layer_norm": "temporal.norm",
    "classifier": "heads.0",
}
_TADACONV_BLOCK = re.compile(r"backbone\.(layers|layers_temporal)\.(\d+)\.(.+?)(\.weight|\.bias)")
_AUTHORS_BLOCK = re.compile(r"(spatial|temporal)_model\.backbone\.blocks\.(\d+)\.(.+?)(\.weight|\.bias)")
_HEAD = re.compile(r"heads\.(\d)(\..+)")
_SUB_MODELS = {"layers": "spatial", "layers_temporal": "temporal", "spatial": "spatial", "temporal": "temporal"}


def rename_vivit_weights(weights: Mapping[str, Tensor], heads: Sequence[str]) -> tuple[dict[str, Tensor], list[str]]:
    """Give weights the names that FactorisedViViT has for them; none of them is changed.

    Args:
        weights: by name, as in a file.
        heads: the model's heads in order. Those of others have numbers: of EPIC-Kitchens, verbs are the first and nouns
            the second.

    Returns:
        The weights, what nothing is known about under its own name; and what was done, in words.
    """
    if any(name.startswith("backbone.layers_temporal.") for name in weights):
        style, simple, block, parts = "TAdaConv's", _TADACONV, _TADACONV_BLOCK, _TADACONV_PARTS
    elif any(name.startswith("temporal_model.backbone.blocks.") for name in weights):
        style, simple, block, parts = "the paper's authors'", _AUTHORS, _AUTHORS_BLOCK, _AUTHORS_PARTS
    else:
        return dict(weights), []
    renamed, remarks = {}, [f"{style} names of a factorised ViViT"]
    for name, value in weights.items():
        ours = _rename(name, simple, block, parts)
        if head := _HEAD.fullmatch(ours):
            if int(head[1]) >= len(heads):
                remarks.append(f"{name} has no use: this model has the heads {', '.join(heads)}")
                continue
            ours = f"heads.{heads[int(head[1])]}{head[2]}"
        renamed[ours] = value
    return renamed, remarks


def _rename(name: str, simple: Mapping[str, str], block: re.Pattern, parts: Mapping[str, str]) -> str:
    if (found := block.fullmatch(name)) and found[3] in parts:
        return f"{_SUB_MODELS[found[1]]}.blocks.{found[2]}.{parts[found[3]]}{found[4]}"
    for ending in ("", ".weight", ".bias"):
        stem = name.removesuffix(ending)
        if name.endswith(ending) and stem in simple:
            return simple[stem] + ending
    return name


def fit_positions(weights: dict[str, Tensor], grid: Grid) -> list[str]:
    """Resize spatial positions made for another square grid, in place; returns what was done, in words."""
    name = "spatial.pos_embed"
    positions = weights.get(name)
    if positions is None or positions.dim() != 3 or positions.shape[1] == 1 + grid[0] * grid[1]:
        return []
    side = round((positions.shape[1] - 1) ** 0.5)
    if side < 1 or side * side != positions.shape[1] - 1:
        return []
    weights[name] = resize_class_positions(positions.float(), (side, side), grid).to(positions.dtype)
    return [f"{name} from {side} x {side} to {grid[0]} x {grid[1]} tokens"]
