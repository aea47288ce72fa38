"""The image encoder of segment_anything."""

from __future__ import annotations

from typing import Any

from segment_anything.modeling.image_encoder import Attention, Block, ImageEncoderViT, MLPBlock
from torch import nn

from ..layers import MlpParts, is_plain
from .family import GRID, BlockCall, BlockParts, Family, UnsuitableModule, mlp_of, norm_of
from .windowed import windowed_spec


def family_of(model: nn.Module) -> Family | None:
    """How a model of this library is laid out; None for one that is not known."""
    if not isinstance(model, ImageEncoderViT):
        return None
    return Family(
        blocks="blocks",
        describe=describe,
        dim=lambda model: model.patch_embed.proj.out_channels,
        images="x",
        form=GRID,
    )


def describe(block: nn.Module, call: BlockCall) -> BlockParts:
    """The parts of a block."""
    if type(block) is not Block:
        raise UnsuitableModule(block, "is a block that is not known")
    known = is_plain(block.attn, Attention)
    mlp, idle = mlp_of(block.mlp, (MLPBlock,), _mlp_parts)
    spec = windowed_spec(
        block.attn,
        block.attn.num_heads if known else None,
        window=block.window_size,
        dim=call.dim,
        norm1=norm_of(block.norm1),
        norm2=norm_of(block.norm2),
        mlp=mlp,
    )
    return BlockParts(spec, idle)


def _mlp_parts(mlp: Any) -> tuple[MlpParts, tuple[nn.Module, ...]]:
    return MlpParts(mlp.lin1, mlp.act, mlp.lin2), ()
