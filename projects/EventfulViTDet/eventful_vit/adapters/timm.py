"""timm's `VisionTransformer` and `Eva` (EVA, DINOv3, Perception Encoder, ...) and their subclasses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.layers import (
    Attention,
    AttentionRope,
    GluMlp,
    LayerNorm,
    LayerNormFp32,
    LayerScale,
    Mlp,
    RmsNorm,
    RmsNormFp32,
    SimpleNorm,
    SimpleNormFp32,
    SwiGLU,
)
from timm.models.eva import Eva, EvaAttention, EvaBlock, EvaBlockPostNorm
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer
from torch import Tensor, nn

from ..attention.rotary import RotaryTables
from ..block import BlockSpec
from ..layers import Linear, MlpParts, Norm, SideBySide, Weights, is_plain
from . import family
from .family import Arguments, BlockCall, BlockParts, Family, UnsuitableModule, on_rows

MLPS = (Mlp, GluMlp, SwiGLU)
NORMS = ((LayerNorm,), (LayerNormFp32, RmsNorm, RmsNormFp32, SimpleNorm, SimpleNormFp32))
"""Classes that compute what `nn.LayerNorm` does, and others on single tokens."""


def family_of(vit: nn.Module) -> Family | None:
    """How a model of this library is laid out; None for one that is not known."""
    if not isinstance(vit, (VisionTransformer, Eva)):
        return None
    return Family(
        blocks="blocks",
        describe=describe,
        dim=lambda vit: vit.embed_dim,
        grid=lambda vit, size: vit.patch_embed.dynamic_feat_size(size),
        images="x",
        methods=("forward", "forward_features", "forward_intermediates", "get_intermediate_layers"),
        is_chain=is_chain,
    )


def is_chain(vit: nn.Module, method: str, arguments: Arguments) -> bool:
    # With "mixed" rotary positions each block gets angles of its own.
    return method in ("forward", "forward_features") and not getattr(vit, "rope_mixed", False)


def describe(block: nn.Module, call: BlockCall) -> BlockParts:
    """The parts of a block."""
    if isinstance(block, (ResPostBlock, EvaBlockPostNorm)):
        raise UnsuitableModule(block, "normalises behind its layers (post-norm)")
    if type(block) not in (Block, EvaBlock):
        raise UnsuitableModule(block, "is a block that is not known")
    mlp, idle = family.mlp_of(block.mlp, MLPS, _mlp_parts)
    scales = [block.gamma_1, block.gamma_2] if type(block) is EvaBlock else [_scale(block.ls1), _scale(block.ls2)]
    common = {
        "dim": call.dim,
        "prefix": call.prefix,
        "norm1": _norm(block.norm1),
        "norm2": _norm(block.norm2),
        "mlp": mlp,
        "layer_scale1": scales[0],
        "layer_scale2": scales[1],
    }
    idle += (block.drop_path1, block.drop_path2)
    attn = block.attn
    if not _is_known(attn):
        given = {name: value for name, value in call.arguments.items() if value is not None}
        return BlockParts(family.other_attention(attn, on_rows(lambda x: attn(x, **given)), common), idle)
    idle += (attn.attn_drop, attn.proj_drop)
    return BlockParts(_spec(attn, call, common), idle, attn)


def _spec(attn: nn.Module, call: BlockCall, common: Mapping[str, Any]) -> BlockSpec:
    """The specification of a block whose attention is known, with its other parts in `common`."""
    return BlockSpec(
        heads=attn.num_heads,
        head_dim=attn.head_dim,
        qkv=_qkv(attn),
        projection=attn.proj,
        scale=None if attn.fused_attn else attn.scale,  # PyTorch's fused attention is called without it
        query_norm=family.norm_or_none(attn.q_norm, *NORMS),
        key_norm=family.norm_or_none(attn.k_norm, *NORMS),
        projection_norm=family.norm_or_none(attn.norm, *NORMS),
        rotary=_rotary(attn, call),
        **common,
    )


def _is_known(attn: nn.Module) -> bool:
    """Whether it is attention whose parts are known. Gated attention and shared keys are not taken apart."""
    if not is_plain(attn, Attention, AttentionRope, EvaAttention) or attn.gate is not None:
        return False
    if getattr(attn, "q_bias", None) is not None and not is_plain(attn.qkv, nn.Linear):
        return False  # its code reads the weight past the module
    return getattr(attn, "num_kv_groups", 1) == 1


def _qkv(attn: nn.Module) -> Linear:
    if getattr(attn, "q_proj", None) is not None:
        return SideBySide((attn.q_proj, attn.k_proj, attn.v_proj))
    if getattr(attn, "q_bias", None) is not None:
        return Weights(attn.qkv.weight, torch.cat([attn.q_bias, attn.k_bias, attn.v_bias]))
    return attn.qkv


def _rotary(attn: nn.Module, call: BlockCall) -> RotaryTables | None:
    """From [sine | cosine] of the grid's tokens, (h * w, 2d), or (H, h * w, 2d) for each head."""
    angles = call.arguments.get("rope")
    if angles is None:
        return None

    def tables() -> RotaryTables:
        by_head = angles[:, None] if angles.dim() == 2 else angles.transpose(0, 1)
        sin, cos = by_head.chunk(2, dim=-1)
        return RotaryTables.of_grid(sin, cos, attn.num_prefix_tokens, interleaved=not attn.rotate_half)

    return call.once(angles, tables)


def _mlp_parts(mlp: Any) -> tuple[MlpParts, tuple[nn.Module, ...]]:
    fc1, gate = mlp.fc1 if not isinstance(mlp, SwiGLU) else SideBySide((mlp.fc1_g, mlp.fc1_x)), None
    if isinstance(mlp, SwiGLU):
        gate = 0
    elif isinstance(mlp, GluMlp):
        gate = 1 if mlp.gate_last else 0
    return MlpParts(fc1, mlp.act, mlp.fc2, gate, family.norm_or_none(mlp.norm, *NORMS)), (mlp.drop1, mlp.drop2)


def _norm(norm: nn.Module) -> Norm:
    return family.norm_of(norm, *NORMS)


def _scale(scale: nn.Module) -> Tensor | nn.Module | None:
    if is_plain(scale, nn.Identity):
        return None
    family.check_kind(scale, (LayerScale,), "a scale of channels")
    return scale.gamma if is_plain(scale, LayerScale) else scale
