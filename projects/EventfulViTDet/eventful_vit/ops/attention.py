"""Operators of attention.

`qkv` holds queries, keys and values side by side, (B, N, 3D). What an attention is like is the same in all operators:
`tables` are those of relative positions along rows and columns, or empty; `heads` and `scale`; and `layout` is [h, w,
window, pool]: the token grid with h * w = N, the side of windows in tokens (0: the whole grid), and how many tokens per
side keys and values are averaged over.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention.layout import AttentionLayout, attention_layout
from ..attention.position import add_position_terms, position_tables, position_terms
from .operator import operator

DENSE_ABOVE = 0.4
"""Share of changed keys above which all sums are recomputed. By operations the two ways meet at one half."""
SCORE_LIMIT = 30.0
"""A score this far above its query's reference (a factor of 1e13) asks for a new one, well before exp overflows."""
DRIFT_LIMIT = 16.0
"""Largest error bound of a query's sums, as a multiple of the error of sums that were just computed
(attention/exact.py)."""
ACCUMULATION = 1 / 16
"""What one addition to the sums adds to their error bound, in the same unit."""
CHUNK_SCORES = 2**24
"""Scores of dense attention alive at a time without gradients: 64 MB in float32, not the whole H x N x N."""
TILE_SCORES = 2**20
"""Scores of an update computed at a time: 4 MB, so that they are used while they are in cache."""
GPU_SCORES = 2**28
"""Both on a GPU, which wants large tasks."""
SHORT_TYPES = (torch.float16, torch.bfloat16)

_KIND = "Tensor[] tables, int heads, float scale, int[] layout"


# Dense attention.


def _attend_shapes(qkv: Tensor, padding, tables, heads, scale, layout, dtype: torch.dtype) -> Tensor:
    return qkv.new_empty(*qkv.shape[:2], qkv.shape[2] // 3, dtype=dtype)


def _attend_flops(qkv: Tensor, padding, tables, heads, scale, layout, *args, **kwargs) -> int:
    return 2 * qkv.shape[0] * qkv.shape[2] // 3 * _macs_per_channel(attention_layout(*layout), tables)


def _macs_per_channel(layout: AttentionLayout, tables: Sequence[Tensor]) -> int:
    return layout.padded_tokens * (2 * layout.keys + (sum(layout.key_grid) if tables else 0))


@operator(
    f"attend(Tensor qkv, Tensor? padding, {_KIND}, ScalarType dtype) -> Tensor",
    shapes=_attend_shapes,
    flops=_attend_flops,
)
def attend(
    qkv: Tensor, padding: Tensor | None, tables: Sequence[Tensor], heads: int, scale: float, layout: Sequence[int],
    dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    """Attention of all tokens, before the output projection: (B, N, 3D) -> (B, N, D).

    Args:
        padding: (3D,), queries, keys and values of the tokens that fill up windows; None: zeros.
        dtype: type of the result.
    """
    layout = attention_layout(*layout)
    out = _attend_groups(layout.partition(qkv, padding), tables, heads, scale, layout)
    return layout.merge(out).to(dtype).contiguous()


def _attend_groups(qkv: Tensor, tables: Sequence[Tensor], heads: int, scale: float, layout: AttentionLayout) -> Tensor:
    """Attention inside each group (a window, or the whole grid): (G, a * b, 3D) -> (G, a * b, D)."""
    tables = position_tables(*tables, layout) if tables else ()
    if qkv.dtype in SHORT_TYPES and not qkv.is_cuda and not torch.is_grad_enabled():
        qkv = qkv.float()  # scores of float16 may overflow, and a CPU computes float32 as fast
    q, k, v = (part.flatten(0, 1) for part in split_heads(qkv, heads))
    k, v = layout.pool_keys(k), layout.pool_keys(v)
    size = len(q) if torch.is_grad_enabled() else _chunk(q, CHUNK_SCORES, q.shape[1] * k.shape[1])
    # On a CPU PyTorch's fused attention is no faster than products.
    attend = _attend_fused if q.is_cuda else _attend_by_products
    chunks = zip(q.split(size), k.split(size), v.split(size))
    out = torch.cat([attend(*chunk, tables, scale, layout) for chunk in chunks])
    return out.unflatten(0, (-1, heads)).transpose(1, 2).flatten(2)


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(G, n, 3D) -> queries, keys and values, (G, H, n, d) each."""
    return qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _attend_by_products(
    q: Tensor, k: Tensor, v: Tensor, tables: Sequence[Tensor], scale: float, layout: AttentionLayout
) -> Tensor:
    scores = (q * scale) @ k.transpose(-2, -1)
    if tables:
        scores = add_position_terms(scores, position_terms(q, tables, layout), layout)
    return scores.softmax(dim=-1) @ v


def _attend_fused(
    q: Tensor, k: Tensor, v: Tensor, tables: Sequence[Tensor], scale: float, layout: AttentionLayout
) -> Tensor:
    mask = None
    if tables:
        rows, columns = position_terms(q, tables, layout)
        mask = (rows[..., :, None] + columns[..., None, :]).reshape(1, *q.shape[:2], k.shape[1])
    # As one image with many heads; the groups do not mix either way.
    return F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=mask, scale=scale)[0]


def _chunk(q: Tensor, scores: int, scores_each: int) -> int:
    return max(1, (GPU_SCORES if q.is_cuda else scores) // scores_each)


# Windows that hold a selected token.


def _windows_shapes(qkv: Tensor, *args) -> Tensor:
    return qkv.new_empty(len(qkv), dtype=torch.int64)


def _windows_flops(
    qkv: Tensor, index, used, out, padding, tables, heads, scale, layout, *, out_val: Tensor, **kwargs
) -> int:
    layout = attention_layout(*layout)
    return 2 * (qkv.shape[2] // 3 * _macs_per_channel(layout, tables)) // layout.windows * int(out_val.sum())


@operator(
    f"attend_windows(Tensor qkv, Tensor index, Tensor? used, Tensor(a!) out, Tensor? padding, {_KIND}) -> Tensor",
    shapes=_windows_shapes,
    flops=_windows_flops,
)
def attend_windows(
    qkv: Tensor, index: Tensor, used: Tensor | None, out: Tensor, padding: Tensor | None, tables: Sequence[Tensor],
    heads: int, scale: float, layout: Sequence[int],
) -> Tensor:  # fmt: skip
    """Attention of the windows that hold a selected token, written into `out` (B, N, D); the others stay.

    Args:
        index: selected tokens of all streams, places in B * N. used: how many of them count (ops/gating.py).

    Returns:
        Windows computed in each stream, (B,).
    """
    layout = attention_layout(*layout)
    touched = _touched_windows(index if used is None else index[: int(used)], len(qkv), layout)
    stream, place = touched.nonzero(as_tuple=True)
    members = layout.window_members.to(qkv.device)[place]
    inside = members >= 0
    flat = members.clamp(min=0) + stream[:, None] * layout.tokens
    groups = qkv.flatten(0, 1)[flat]
    if any(layout.padding):
        groups[~inside] = 0 if padding is None else padding.to(groups.dtype)
    result = _attend_groups(groups, tables, heads, scale, layout)
    out.view(-1, out.shape[-1])[flat[inside]] = result[inside].to(out.dtype)
    return touched.sum(dim=1)


def _touched_windows(index: Tensor, streams: int, layout: AttentionLayout) -> Tensor:
    """Which windows hold a selected token: boolean (B, windows)."""
    place = layout.window_of_token.to(index.device)[index % layout.tokens]
    touched = torch.zeros(streams * layout.windows, dtype=torch.bool, device=index.device)
    touched[index // layout.tokens * layout.windows + place] = True
    return touched.view(streams, layout.windows)


# Sums of exact incremental attention.


def _update_shapes(q: Tensor, *args) -> Tensor:
    return q.new_empty(len(q), 2, dtype=torch.int64)


def _update_flops(q: Tensor, kv, change, state, tables, heads, scale, layout, *, out_val: Tensor, **kwargs) -> int:
    layout, channels = attention_layout(*layout), state[0].shape[-1]
    changed = change[3].diff().tolist() if change else [0] * len(q)
    macs = 0
    for (exchanged, recomputed), count in zip(out_val.tolist(), changed):
        macs += 2 * channels * (recomputed * layout.keys + 2 * exchanged * count)
        if tables and exchanged + recomputed:
            macs += layout.tokens * sum(layout.key_grid) * heads * channels
    return 2 * macs


@operator(
    f"update_sums(Tensor q, Tensor kv, Tensor[] change, Tensor(a!)[] state, {_KIND}) -> Tensor",
    shapes=_update_shapes,
    flops=_update_flops,
)
def update_sums(
    q: Tensor, kv: Tensor, change: Sequence[Tensor], state: Sequence[Tensor], tables: Sequence[Tensor], heads: int,
    scale: float, layout: Sequence[int],
) -> Tensor:  # fmt: skip
    """Bring the sums of exact incremental attention up to date (attention/exact.py).

    Args:
        q: unscaled queries, (B, N, D). kv: keys and values side by side, (B, S, 2D), after the change.
        change: what changed: tokens with new queries (R,), of all B * N, and where each stream's begin (B + 1,); keys
            (K,), of all B * S, and where each stream's begin; and keys and values of these before, (K, 2D). Empty:
            everything changed.
        state: U (B, H, N, d); Z, m and the error bound, (B, H, N).

    Returns:
        For each stream, pairs of a head and a query whose terms were exchanged, and whose sums were recomputed, (B, 2).
    """
    layout = attention_layout(*layout)
    tables = position_tables(*tables, layout) if tables else ()
    executed = []
    for stream in range(len(q)):
        work = _StreamUpdate(q[stream], kv[stream], [part[stream] for part in state], tables, scale, layout)
        executed.append(work.run(stream, *change) if change else work.recompute_all())
    return torch.tensor(executed)


class _StreamUpdate:
    """The reference implementation of `update_sums` for one stream: a tile of queries after another."""

    def __init__(
        self,
        q: Tensor,
        kv: Tensor,
        state: Sequence[Tensor],
        tables: Sequence[Tensor],
        scale: float,
        layout: AttentionLayout,
    ) -> None:
        self.sums, self.normalisers, self.references, self.drift = state
        self.heads, self.scale, self.layout = self.sums.shape[0], scale, layout
        self.q = self._split(q)
        self.k, self.v = (self._split(part) for part in kv.chunk(2, -1))
        terms = position_terms(self.q, tables, layout) if tables else None
        self.terms = None if terms is None else tuple(term.flatten(1, 2) for term in terms)

    def run(
        self, stream: int, index: Tensor, offsets: Tensor, keys: Tensor, key_offsets: Tensor, old: Tensor
    ) -> tuple[int, int]:
        """Do what the stream's part of a change asks for; returns the pairs exchanged and recomputed."""
        first, last = key_offsets[stream : stream + 2].tolist()
        tokens = index[offsets[stream] : offsets[stream + 1]] - stream * self.layout.tokens
        if last - first > DENSE_ABOVE * self.layout.keys:
            return self.recompute_all()
        if first == last:
            return 0, 0
        return self.exchange(tokens, keys[first:last] - stream * self.layout.keys, old[first:last])

    def recompute_all(self) -> tuple[int, int]:
        self._recompute(torch.arange(self.q.shape[1], device=self.q.device))
        return 0, self.heads * self.q.shape[1]

    def exchange(self, tokens: Tensor, keys: Tensor, old: Tensor) -> tuple[int, int]:
        """Recompute queries that changed, update the others, and recompute those whose error bound was exceeded."""
        unchanged = torch.ones(self.q.shape[1], dtype=torch.bool, device=self.q.device)
        unchanged[tokens] = False
        others = unchanged.nonzero().squeeze(1)
        self._recompute(tokens)
        unreliable = others[self._exchange_terms(others, keys, old)]
        self._recompute(unreliable)
        return self.heads * len(others), self.heads * (len(tokens) + len(unreliable))

    def _split(self, x: Tensor) -> Tensor:
        """(n, D) -> (H, n, d), in the type of the sums."""
        return x.unflatten(-1, (self.heads, -1)).transpose(0, 1).to(self.sums.dtype)

    def _recompute(self, queries: Tensor) -> None:
        """Compute the sums of these queries over all keys, with new references."""
        for tile in queries.split(_chunk(self.q, TILE_SCORES, self.heads * self.k.shape[1])):
            scores = (self.q[:, tile] * self.scale) @ self.k.mT
            if self.terms is not None:
                spread = scores.unflatten(-1, self.layout.key_grid)
                spread += self.terms[0][:, tile, :, None]
                spread += self.terms[1][:, tile, None, :]
            reference = scores.amax(dim=-1)
            weights = scores.sub_(reference[..., None]).exp_()
            self.references[:, tile] = reference
            self.normalisers[:, tile] = weights.sum(dim=-1)
            self.sums[:, tile] = weights @ self.v
            self.drift.index_fill_(1, tile, 1.0)

    def _exchange_terms(self, queries: Tensor, keys: Tensor, old: Tensor) -> Tensor:
        """Take the old terms of changed keys out of the sums of these queries (T,) and add the new ones.

        Returns:
            Which of the sums are no longer to be relied upon, (T,).
        """
        old_k, old_v = (self._split(part) for part in old.chunk(2, -1))
        k = torch.cat([self.k[:, keys], old_k], dim=1)
        v = torch.cat([self.v[:, keys], -old_v], dim=1)
        unreliable = []
        for tile in queries.split(_chunk(self.q, TILE_SCORES, 2 * self.heads * len(keys))):
            scores = (self.q[:, tile] * self.scale) @ k.mT
            if self.terms is not None:
                width = self.layout.key_grid[1]
                rows, columns = (term[:, tile] for term in self.terms)
                bias = rows.index_select(-1, keys // width) + columns.index_select(-1, keys % width)
                scores.unflatten(-1, (2, len(keys))).add_(bias[..., None, :])
            scores -= self.references[:, tile, None]
            too_high = (scores[..., : len(keys)].amax(dim=-1) > SCORE_LIMIT).any(dim=0)
            unreliable.append(too_high | self._accumulate(tile, scores.exp_(), v, len(keys)))
        return torch.cat(unreliable) if unreliable else queries.new_zeros(0, dtype=torch.bool)

    def _accumulate(self, tile: Tensor, weights: Tensor, values: Tensor, new: int) -> Tensor:
        """Add signed terms, the first `new` of them added ones; returns which queries drifted too far, (T,)."""
        added, removed = weights[..., :new].sum(dim=-1), weights[..., new:].sum(dim=-1)
        before = self.normalisers[:, tile]
        after = before + (added - removed)
        drift = (self.drift[:, tile] * before + (added + removed) + ACCUMULATION * after.abs()) / after
        self.sums[:, tile] += weights @ values
        self.normalisers[:, tile] = after
        self.drift[:, tile] = drift
        # Written so that NaN, infinity and a normaliser below zero count as drifted.
        return ~((after > 0) & (drift <= DRIFT_LIMIT)).all(dim=0)


def _divide_shapes(sums: Tensor, normalisers: Tensor, dtype: torch.dtype) -> Tensor:
    streams, heads, tokens, channels = sums.shape
    return sums.new_empty(streams, tokens, heads * channels, dtype=dtype)


@operator("divide(Tensor sums, Tensor normalisers, ScalarType dtype) -> Tensor", shapes=_divide_shapes)
def divide(sums: Tensor, normalisers: Tensor, dtype: torch.dtype) -> Tensor:
    """The attention that sums stand for: U (B, H, N, d) / Z (B, H, N) -> (B, N, D)."""
    return (sums / normalisers[..., None]).transpose(1, 2).flatten(2).to(dtype)
