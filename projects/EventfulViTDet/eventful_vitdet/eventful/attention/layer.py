"""Multi-head attention with Detectron2's parameter names, and its dense computation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..counting import each
from ..kernels import native
from ..linear import Linear
from ..step import Step
from .layout import AttentionLayout
from .position import PositionTables, add_position_bias, position_bias

CHUNK_ELEMENTS = 2**24
"""Scores, or their position bias, alive at a time without gradients: 64 MB in float32, not the whole H x N x N."""
GPU_CHUNK_ELEMENTS = 2**28
"""The same on a GPU, which wants large tasks."""


class Attention(nn.Module):
    """The parameters of a block's attention: `qkv`, `proj`, `rel_pos_h`, `rel_pos_w`."""

    def __init__(
        self, dim: int, num_heads: int, qkv_bias: bool, use_rel_pos: bool, table_grid: tuple[int, int]
    ) -> None:
        """
        Args:
            table_grid: (h, w) that the relative position tables are made for: 2h - 1 and 2w - 1 rows.
        """
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"embed_dim = {dim} is not divisible by num_heads = {num_heads}")
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkv = Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = Linear(dim, dim)
        self.use_rel_pos = use_rel_pos
        if use_rel_pos:
            self.rel_pos_h = nn.Parameter(torch.zeros(2 * table_grid[0] - 1, dim // num_heads))
            self.rel_pos_w = nn.Parameter(torch.zeros(2 * table_grid[1] - 1, dim // num_heads))
        self._tables = PositionTables()

    def split_heads(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(G, n, 3D) -> queries, keys and values, (G, H, n, d) each."""
        return qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def position_terms(self, q: Tensor, layout: AttentionLayout) -> tuple[Tensor, Tensor] | None:
        """Bias terms of queries (G, a * b, d), or None where the model has no relative positions."""
        if not self.use_rel_pos:
            return None
        return position_bias(q, self.position_tables(layout), layout)

    def position_tables(self, layout: AttentionLayout) -> tuple[Tensor, Tensor]:
        """Expanded tables of relative positions, (a, a / p, d) for rows and (b, b / p, d) for columns."""
        return self._tables(self.rel_pos_h, self.rel_pos_w, layout)

    def packed_position_tables(self, layout: AttentionLayout) -> tuple[Tensor, Tensor] | None:
        """The same for the compiled kernels, or None where the model has no relative positions."""
        return self._tables.packed(self.rel_pos_h, self.rel_pos_w, layout) if self.use_rel_pos else None

    def attend(self, qkv: Tensor, layout: AttentionLayout) -> Tensor:
        """Dense attention over all tokens: (B, N, 3D) -> (B, N, D), before the output projection."""
        if native.usable(qkv):
            out = qkv.new_empty(*qkv.shape[:2], self.proj.in_features)
            for stream, tokens in enumerate(qkv):
                members = layout.window_members if layout.window else None
                native.attend_groups(self.native_problem(tokens, layout), members, out[stream])
            return out
        return layout.merge(self.attend_groups(layout.partition(qkv, self.qkv.bias), layout))

    def attend_to_state(self, qkv: Tensor, dtype: torch.dtype, layout: AttentionLayout) -> Tensor:
        """Dense attention over stored queries, keys and values, which may have a shorter type than the tokens.

        A GPU multiplies in the type of the state, for which it has far faster units; a CPU in that of the tokens.
        """
        return self.attend(qkv if qkv.is_cuda else qkv.to(dtype), layout).to(dtype)

    def attend_groups(self, qkv: Tensor, layout: AttentionLayout) -> Tensor:
        """Dense attention inside each group (a window, or the whole grid): (G, a * b, 3D) -> (G, a * b, D)."""
        q, k, v = (part.flatten(0, 1) for part in self.split_heads(qkv))
        out = self._attend_in_chunks(q, layout.pool_keys(k), layout.pool_keys(v), layout)
        return out.unflatten(0, (-1, self.num_heads)).transpose(1, 2).flatten(2)

    def native_problem(self, qkv: Tensor, layout: AttentionLayout) -> native.AttentionProblem:
        """The same for the compiled kernels, from one stream's tokens (N, 3D)."""
        q, k, v = qkv.chunk(3, dim=-1)
        if layout.pool > 1:
            k, v = layout.pool_keys(qkv[:, q.shape[-1] :]).chunk(2, dim=-1)
        return native.AttentionProblem(
            q,
            k,
            v,
            self.num_heads,
            self.scale,
            layout.query_grid,
            layout.key_grid,
            self.packed_position_tables(layout),
            None if self.qkv.bias is None else self.qkv.bias.to(qkv.dtype).contiguous(),
        )

    def _attend_in_chunks(self, q: Tensor, k: Tensor, v: Tensor, layout: AttentionLayout) -> Tensor:
        """Attention of (G, n, d) queries to (G, S, d) keys, some groups at a time where memory asks for it."""
        if torch.is_grad_enabled():
            return self._attend_by_products(q, k, v, layout)
        elements = GPU_CHUNK_ELEMENTS if q.is_cuda else CHUNK_ELEMENTS
        size = max(1, elements // (q.shape[1] * k.shape[1]))
        # On a CPU the library's fused attention is hardly faster than products, and no operation counter sees it.
        attend = self._attend_fused if q.is_cuda else self._attend_by_products
        chunks = zip(q.split(size), k.split(size), v.split(size))
        return torch.cat([attend(*chunk, layout) for chunk in chunks])

    def _attend_by_products(self, q: Tensor, k: Tensor, v: Tensor, layout: AttentionLayout) -> Tensor:
        scores = (q * self.scale) @ k.transpose(-2, -1)
        bias = self.position_terms(q, layout)
        if bias is not None:
            scores = add_position_bias(scores, bias, layout)
        return scores.softmax(dim=-1) @ v

    def _attend_fused(self, q: Tensor, k: Tensor, v: Tensor, layout: AttentionLayout) -> Tensor:
        bias = self.position_terms(q, layout)
        mask = None
        if bias is not None:
            mask = (bias[0][..., :, None] + bias[1][..., None, :]).reshape(1, *q.shape[:2], k.shape[1])
        # As one image with many heads; the groups do not mix either way.
        return F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=mask, scale=self.scale)[0]

    # Operations, by the closed forms of the paper's evaluation.

    def product_macs(self, layout: AttentionLayout) -> int:
        """Both matrix products of dense attention."""
        return 2 * layout.padded_tokens * layout.keys * self.proj.in_features

    def count_position(self, layout: AttentionLayout, step: Step) -> None:
        """Count position products, their additions and the windows' padding, which the paper's modes never reduce."""
        streams = len(step.flush)
        step.count("position", each(streams, self.position_macs(layout)))
        step.count("add", each(streams, self.bias_additions(layout)))
        step.count("bias", each(streams, self.padding_additions(layout)))

    def position_macs(self, layout: AttentionLayout) -> int:
        """Products of all queries with the position tables."""
        if not self.use_rel_pos:
            return 0
        return layout.padded_tokens * sum(layout.key_grid) * self.proj.in_features

    def bias_additions(self, layout: AttentionLayout) -> int:
        """Additions of the two position terms to the scores."""
        if not self.use_rel_pos:
            return 0
        return 2 * self.num_heads * layout.padded_tokens * layout.keys

    def padding_additions(self, layout: AttentionLayout) -> int:
        """Turning the windows' zero padding into the QKV bias."""
        has_padding = any(layout.padding) and self.qkv.bias is not None
        return self.qkv.out_features if has_padding else 0
