"""torchvision's `VisionTransformer`."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from torchvision.models.vision_transformer import EncoderBlock, MLPBlock, VisionTransformer

from ..block import BlockSpec
from ..layers import MlpParts, Weights, is_plain
from .family import (
    BlockCall,
    BlockParts,
    Family,
    UnsuitableModule,
    mlp_of,
    norm_of,
    on_rows,
    other_attention,
)


def family_of(model: nn.Module) -> Family | None:
    """How a model of this library is laid out; None for one that is not known."""
    if not isinstance(model, VisionTransformer):
        return None
    return Family(
        blocks="encoder.layers",
        describe=describe,
        dim=lambda vit: vit.hidden_dim,
        grid=lambda vit, size: (size[0] // vit.patch_size, size[1] // vit.patch_size),
        images="x",
    )


def describe(block: nn.Module, call: BlockCall) -> BlockParts:
    """The parts of a block."""
    if type(block) is not EncoderBlock:
        raise UnsuitableModule(block, "is a block that is not known")
    mlp, idle = mlp_of(block.mlp, (MLPBlock,), _mlp_parts)
    attention = block.self_attention
    common = {
        "dim": call.dim,
        "prefix": call.prefix,
        "norm1": norm_of(block.ln_1),
        "norm2": norm_of(block.ln_2),
        "mlp": mlp,
    }
    idle += (block.dropout,)
    if not _is_known(attention):
        attend = on_rows(lambda x: attention(x, x, x, need_weights=False))
        return BlockParts(other_attention(attention, attend, common), idle)
    spec = BlockSpec(
        heads=attention.num_heads,
        head_dim=attention.head_dim,
        qkv=Weights(attention.in_proj_weight, attention.in_proj_bias),
        projection=Weights(attention.out_proj.weight, attention.out_proj.bias),
        **common,
    )
    return BlockParts(spec, idle, attention)


def _is_known(attention: nn.Module) -> bool:
    """Whether it is plain self-attention. Its code reads the weights past the output projection's module."""
    return (
        is_plain(attention, nn.MultiheadAttention)
        and is_plain(attention.out_proj, NonDynamicallyQuantizableLinear)
        and attention.in_proj_weight is not None
        and attention.bias_k is None
        and not attention.add_zero_attn
    )


def _mlp_parts(mlp: Any) -> tuple[MlpParts, tuple[nn.Module, ...]]:
    fc1, act, drop1, fc2, drop2 = mlp
    return MlpParts(fc1, act, fc2), (drop1, drop2)
