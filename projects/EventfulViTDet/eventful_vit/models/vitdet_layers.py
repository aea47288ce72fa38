"""Layers of Detectron2's ViT: patch embedding, attention, and blocks, with their parameters and names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops
from ..attention.position import position_matrix
from ..block import BlockSpec
from ..layers import Mlp, is_plain, run_linear

LAYER_NORM = partial(nn.LayerNorm, eps=1e-6)
"""The norms of Detectron2's ViT."""


class PatchEmbed(nn.Module):
    """Patches to tokens by one strided convolution: (B, C, H, W) -> (B, N, D)."""

    def __init__(
        self, patch_size: int, in_chans: int, embed_dim: int, compute_dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.compute_dtype = compute_dtype
        self.proj = nn.Conv2d(in_chans, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor, positions: Tensor | None = None) -> Tensor:
        """Also adds positions (1, N, D), if given."""
        if is_plain(self.proj, nn.Conv2d):
            return ops.embed(x, self.proj.weight, self.proj.bias, positions, self.compute_dtype)
        tokens = self.proj(x).flatten(2).transpose(1, 2)
        return tokens.clone(memory_format=torch.contiguous_format) if positions is None else tokens + positions


class Attention(nn.Module):
    """Multi-head attention with decomposed relative positions, and its parameters.

    Blocks compute it by operators. A subclass with a `forward` of its own, or a module hooked into, is called instead,
    as Detectron2's is: with windows or grids of normalised tokens.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        qkv_bias: bool = True,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        input_size: tuple[int, int] | None = None,
        rel_pos_resize: str = "table",
    ) -> None:
        """
        Args:
            input_size: (h, w) that the relative position tables are made for: 2h - 1 and 2w - 1 rows.
            rel_pos_resize: see `EventfulViT`.
        """
        super().__init__()
        if rel_pos_resize not in ("table", "matrix"):
            raise ValueError(f"rel_pos_resize = {rel_pos_resize!r} is unknown; choose 'table' or 'matrix'")
        if dim % num_heads:
            raise ValueError(f"embed_dim = {dim} is not divisible by num_heads = {num_heads}")
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.use_rel_pos = use_rel_pos
        self.rel_pos_resize = rel_pos_resize
        if use_rel_pos:
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * input_size[0] - 1, self.head_dim))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * input_size[1] - 1, self.head_dim))
            if not rel_pos_zero_init:
                nn.init.trunc_normal_(self.rel_pos_h, std=0.02)
                nn.init.trunc_normal_(self.rel_pos_w, std=0.02)

    def position_tables(self) -> tuple[Tensor, ...]:
        """Relative positions along rows and columns, as operators take them; none where there are none."""
        if not self.use_rel_pos:
            return ()
        tables = self.rel_pos_h, self.rel_pos_w
        return tuple(map(position_matrix, tables)) if self.rel_pos_resize == "matrix" else tables

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, D) -> (B, h, w, D)."""
        grid = tuple(x.shape[1:3])
        qkv = run_linear(self.qkv, x.flatten(1, 2))
        a = ops.attend(qkv, None, self.position_tables(), self.num_heads, self.head_dim**-0.5, (*grid, 0, 1), qkv.dtype)
        return run_linear(self.proj, a).unflatten(1, grid)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of a map (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, 1e-6).permute(0, 3, 1, 2)


class ResidualBottleneck(nn.Module):
    """Detectron2's residual bottleneck of convolutions behind a block (`residual_block_indexes`): (B, D, h, w)."""

    def __init__(self, dim: int, act_layer: type[nn.Module]) -> None:
        super().__init__()
        inner = dim // 2
        self.conv1 = nn.Conv2d(dim, inner, 1, bias=False)
        self.norm1 = ChannelNorm(inner)
        self.act1 = act_layer()
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, bias=False)
        self.norm2 = ChannelNorm(inner)
        self.act2 = act_layer()
        self.conv3 = nn.Conv2d(inner, dim, 1, bias=False)
        self.norm3 = ChannelNorm(dim)
        for conv in (self.conv1, self.conv2, self.conv3):
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.norm3.weight)  # it begins as the identity

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.norm1(self.conv1(x)))
        y = self.act2(self.norm2(self.conv2(y)))
        return x + self.norm3(self.conv3(y))


class DropPath(nn.Module):
    """Stochastic depth: in training, drops a branch for some images of a batch and scales it up for the others."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        kept = torch.rand(len(x), *[1] * (x.dim() - 1), device=x.device) >= self.rate
        return x * (kept.to(x.dtype) / (1 - self.rate))


class Block(nn.Module):
    """A block's modules. It is run by its model's encoder, which calls it with tokens and a way to run it."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path: float = 0.0,
        norm_layer: Callable[[int], nn.Module] = LAYER_NORM,
        act_layer: type[nn.Module] = nn.GELU,
        use_rel_pos: bool = False,
        rel_pos_zero_init: bool = True,
        window_size: int = 0,
        use_residual_block: bool = False,
        input_size: tuple[int, int] | None = None,
        kv_pool: int = 1,
        rel_pos_resize: str = "table",
    ) -> None:
        """
        Args:
            window_size: side of the attention windows in tokens; 0 makes the block global.
            input_size: (h, w) that relative position tables of a global block are made for.
            kv_pool: pooling of keys and values in a global block.
        """
        super().__init__()
        self.dim = dim
        self.num_heads = num_heads
        self.window_size = window_size
        self.kv_pool = 1 if window_size else kv_pool
        self.norm1 = norm_layer(dim)
        table_size = (window_size, window_size) if window_size else input_size
        self.attn = Attention(
            dim,
            num_heads,
            qkv_bias=qkv_bias,
            use_rel_pos=use_rel_pos,
            rel_pos_zero_init=rel_pos_zero_init,
            input_size=table_size,
            rel_pos_resize=rel_pos_resize,
        )
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.norm2 = norm_layer(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer)
        self.use_residual_block = use_residual_block
        if use_residual_block:
            self.residual = ResidualBottleneck(dim, act_layer)

    def forward(self, x: Tensor, run: Callable[[BlockSpec, Tensor], Tensor]) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        return run(self.specification(), x)

    def specification(self) -> BlockSpec:
        """What the block consists of, as of now."""
        attention = self.attn
        known = is_plain(attention, Attention)
        return BlockSpec(
            dim=self.dim,
            heads=self.num_heads,
            head_dim=self.dim // self.num_heads,
            norm1=self.norm1,
            qkv=attention.qkv if known else attention,
            projection=attention.proj if known else nn.Identity(),
            norm2=self.norm2,
            mlp=self.mlp.parts if is_plain(self.mlp, Mlp) else self.mlp,
            rel_pos=attention.position_tables() if known else (),
            drop_path=self.drop_path,
            window=self.window_size,
            kv_pool=self.kv_pool,
            other_attention=None if known else attention,
            after=self.residual if self.use_residual_block else None,
        )
