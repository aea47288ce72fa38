"""Blocks with windows and relative positions, as ViTDet has them and Segment Anything's encoders took them over."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..block import BlockSpec
from .family import first, other_attention


def windowed_spec(attention: nn.Module, heads: int | None, **common: Any) -> BlockSpec:
    """The specification of a block.

    Args:
        attention: with `qkv`, `proj`, `scale` and, for relative positions, `rel_pos_h` and `rel_pos_w`.
        heads: None for attention whose code is not known. It is called, with windows or grids (G, a, b, D).
        common: the other parts of the block, as of a `BlockSpec`.
    """
    if heads is None:
        return other_attention(attention, lambda x: first(attention(x)), common)
    return BlockSpec(
        heads=heads,
        head_dim=common["dim"] // heads,
        qkv=attention.qkv,
        projection=attention.proj,
        scale=attention.scale,
        rel_pos=(attention.rel_pos_h, attention.rel_pos_w) if hasattr(attention, "rel_pos_h") else (),
        **common,
    )
