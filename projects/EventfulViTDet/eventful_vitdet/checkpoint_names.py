"""Weights under other names, or made for other image sizes, brought to what a detector of this project has.

Three styles are known: Detectron2's (`backbone.net.blocks.0...`, as this project's own), that of a plain ViT, as MAE
publishes it (`blocks.0...`), and that of the paper's authors, into which their script converts Detectron2's files
(`backbone.blocks.0.input_layer_norm...`). Each may have prefixes before it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from eventful_vit.models.vitdet import resize_positions
from torch import Tensor

from .errors import shorten

VIT_PREFIX = "backbone.net."
PLAIN_VIT_EXTRAS = (
    *("cls_token", "mask_token", "norm.", "fc_norm.", "head.", "heads.", "head_dist.", "fc.", "classifier."),
    *("pre_logits.", "decoder_", "decoder.", "predictor.", "projector.", "proj_head.", "mlp_head."),
)
"""How the names begin of parts of a plain ViT that no detector has: tokens, the last norm, classifiers, heads and
decoders of pre-training."""
MAX_WRAPPERS = 4
"""Prefixes that are taken off a name, one after the other, at most."""
INNER_WRAPPERS = re.compile(r"(^|(?<=\.))(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch.compile, FSDP and activation checkpointing put before the names of the parts that they wrap."""
RELATIVE_TABLE = re.compile(r"backbone\.net\.blocks\.\d+\.attn\.rel_pos_[hw]")
PLAIN_BLOCK = re.compile(r"blocks\.\d+\.")
AUTHORS_BLOCK = re.compile(r"backbone\.blocks\.(\d+)\.(.+?)(\.weight|\.bias)?")
AUTHORS_BLOCK_PARTS = {
    "input_layer_norm": "norm1",
    "qkv": "attn.qkv",
    "projection": "attn.proj",
    "mlp_layer_norm": "norm2",
    "mlp_1": "mlp.fc1",
    "mlp_2": "mlp.fc2",
    "relative_position.y_embedding": "attn.rel_pos_h",
    "relative_position.x_embedding": "attn.rel_pos_w",
}
AUTHORS_PYRAMID = re.compile(r"pyramid\.stages\.(\d)\.(\d)\.(weight|bias)")
AUTHORS_STAGES = (
    {0: "0", 1: "1", 3: "3", 4: "4", 5: "4.norm", 6: "5", 7: "5.norm"},
    {0: "0", 1: "1", 2: "1.norm", 3: "2", 4: "2.norm"},
    {0: "0", 1: "0.norm", 2: "1", 3: "1.norm"},
    {1: "1", 2: "1.norm", 3: "2", 4: "2.norm"},
)
"""By stage of the pyramid: the authors' layers, each by itself, and Detectron2's, which hold their norms."""
STATISTICS = re.compile(r"pixel_mean|pixel_std|.+\.fed_loss_cls_weights")
"""Settings of a model or of its training (how often LVIS has each class), and no weights."""


def adapt_names(weights: Mapping[str, Tensor], shapes: Mapping[str, object]) -> tuple[dict[str, Tensor], list[str]]:
    """Give weights the names that a model has for them.

    Args:
        weights: by name, as in a file.
        shapes: the model's parameters by name.

    Returns:
        The weights under their new names, what nothing is known about under its own; and what was done, in words.
    """
    adapted, remarks = _unwrap(dict(weights), shapes)
    if _is_authors(adapted):
        adapted = {_from_authors(name): value for name, value in adapted.items()}
        remarks.append("the names of the paper's authors, read as Detectron2's")
    elif is_plain_vit(adapted) and any(name.startswith(VIT_PREFIX) for name in shapes):
        adapted, left_out = from_plain_vit(adapted)
        remarks.append(f"a plain ViT's names (as MAE has them), read as {VIT_PREFIX}*")
        if left_out:
            remarks.append(f"{len(left_out)} without a use in a detector: {shorten(left_out)}")
    return {name: value for name, value in adapted.items() if not STATISTICS.fullmatch(name)}, remarks


def _unwrap(weights: dict[str, Tensor], shapes: Mapping[str, object]) -> tuple[dict[str, Tensor], list[str]]:
    """Names without what wrappers of a model put before them: module. (parallel), _orig_mod. (compiled), model. ..."""
    remarks = []
    weights = {INNER_WRAPPERS.sub("", name): value for name, value in weights.items()}
    for _ in range(MAX_WRAPPERS):
        if _is_known(weights, shapes):
            break
        heads = dict.fromkeys(name.partition(".")[0] for name in weights if "." in name)
        for head in heads:
            inner = {name[len(head) + 1 :]: value for name, value in weights.items() if name.startswith(f"{head}.")}
            if _is_known(inner, shapes) or len(inner) == len(weights):
                others = {name: value for name, value in weights.items() if not name.startswith(f"{head}.")}
                weights = {**others, **inner}
                remarks.append(f"names without their prefix {head!r}")
                break
        else:
            break
    return weights, remarks


def _is_known(weights: Mapping[str, Tensor], shapes: Mapping[str, object]) -> bool:
    return any(name in shapes for name in weights) or is_plain_vit(weights) or _is_authors(weights)


def _is_authors(weights: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("backbone.blocks.") and ".input_layer_norm." in name for name in weights)


def _from_authors(name: str) -> str:
    """Detectron2's name for one of a detector that the authors' script has converted; heads have that already."""
    if name.startswith("embedding.conv."):
        return name.replace("embedding.conv.", f"{VIT_PREFIX}patch_embed.proj.")
    if name == "backbone.position_encoding.encoding":
        return f"{VIT_PREFIX}pos_embed"
    if (block := AUTHORS_BLOCK.fullmatch(name)) and block[2] in AUTHORS_BLOCK_PARTS:
        return f"{VIT_PREFIX}blocks.{block[1]}.{AUTHORS_BLOCK_PARTS[block[2]]}{block[3] or ''}"
    if (layer := AUTHORS_PYRAMID.fullmatch(name)) and int(layer[1]) < len(AUTHORS_STAGES):
        known = AUTHORS_STAGES[int(layer[1])].get(int(layer[2]))
        if known is not None:
            return f"backbone.simfp_{int(layer[1]) + 2}.{known}.{layer[3]}"
    return name


def is_plain_vit(weights: Mapping[str, Tensor]) -> bool:
    """Whether these are the weights of a Vision Transformer by itself."""
    return any(map(PLAIN_BLOCK.match, weights)) and not any(name.startswith("backbone.") for name in weights)


def from_plain_vit(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Give a plain ViT's weights the names that they have in a detector.

    Returns:
        The renamed weights and the names left out, as no detector has them. What is neither the one nor the other, such
        as register tokens, is renamed too: the file's Transformer computes with it, and a detector cannot.
    """
    kept, left_out = {}, []
    for name, value in weights.items():
        if name.startswith(PLAIN_VIT_EXTRAS):
            left_out.append(name)
        else:
            kept[VIT_PREFIX + name] = value
    return kept, left_out


def resize_position_weights(weights: dict[str, Tensor], shapes: Mapping[str, torch.Size]) -> list[str]:
    """Resize absolute and relative positions made for other image sizes, in place, by the rules of Detectron2's ViT.

    Args:
        weights: by name, as in the model.
        shapes: of the model's parameters.

    Returns:
        What was resized, in words. Positions that do not fit for another reason stay as they are.
    """
    done = []
    for name, shape in shapes.items():
        value = weights.get(name)
        if value is None or value.shape == shape or not value.numel():
            continue
        if value.ndim != len(shape) or value.shape[-1] != shape[-1]:
            continue
        resized = None
        if name == f"{VIT_PREFIX}pos_embed":
            resized = resize_absolute(value, shape[1])
        elif RELATIVE_TABLE.fullmatch(name):
            resized = F.interpolate(value.float().t()[None], size=shape[0], mode="linear")[0].t().to(value.dtype)
        if resized is not None:
            weights[name] = resized
            done.append(f"{name} from {tuple(value.shape)} to {tuple(shape)}")
    return done


def resize_absolute(positions: Tensor, length: int) -> Tensor | None:
    """Absolute positions (1, [1 +] g * g, D) for another square grid, (1, length, D); None if either is no square.

    The position of the class token, which a detector does not use, is kept where there is one, and zero where only
    the new length has room for it.
    """
    has_token, grid = square_grid(positions.shape[1])
    wants_token, new_grid = square_grid(length)
    if not grid or not new_grid:
        return None
    resized = resize_positions(positions.float(), has_token, (new_grid, new_grid))
    if wants_token:
        token = positions[:, :1].float() if has_token else resized.new_zeros(1, 1, resized.shape[-1])
        resized = torch.cat([token, resized], dim=1)
    return resized.to(positions.dtype)


def square_grid(length: int) -> tuple[bool, int]:
    """Whether this many positions begin with a class token's, and the side of the grid of the others; 0: neither."""
    for token in (True, False):
        side = math.isqrt(length - token)
        if side and side * side == length - token:
            return token, side
    return False, 0
