"""Weights under other names, or made for other image sizes, brought to what a detector of this project has.

Two styles are known: Detectron2's (`backbone.net.blocks.0...`, as this project's own), and that of a plain ViT, as MAE
publishes it (`blocks.0...`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from eventful_vit.models.vitdet import resize_positions
from torch import Tensor

VIT_PREFIX = "backbone.net."
PLAIN_VIT = ("patch_embed.", "blocks.", "pos_embed")
"""How the names begin that a plain ViT and the ViT of a detector share."""
PLAIN_VIT_EXTRAS = ("cls_token", "mask_token", "norm.", "fc_norm.", "head.", "decoder_")
"""Parts of a plain ViT that no detector has: tokens, the last norm, a classifier, MAE's decoder."""
RELATIVE_TABLE = re.compile(r"backbone\.net\.blocks\.\d+\.attn\.rel_pos_[hw]")


def is_plain_vit(weights: Mapping[str, Tensor]) -> bool:
    """Whether these are the weights of a Vision Transformer by itself."""
    return any(name.startswith("blocks.") for name in weights) and not any(n.startswith("backbone.") for n in weights)


def from_plain_vit(weights: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Give a plain ViT's weights the names that they have in a detector.

    Returns:
        The renamed weights, with whatever else is in the file as it is, and the names left out as no detector has them.
    """
    kept, left_out = {}, []
    for name, value in weights.items():
        if name.startswith(PLAIN_VIT):
            kept[VIT_PREFIX + name] = value
        elif name.startswith(PLAIN_VIT_EXTRAS):
            left_out.append(name)
        else:
            kept[name] = value
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
