"""Attention on a GPU: one kernel for whole frames, for windows, and for the queries that need new sums.

A program takes a tile of queries past all of their keys, so that scores never leave the chip. A tile of keys consists
of whole rows of the key grid, or of a piece of one: the term of relative positions along columns is then the same for
each tile, and the term along rows is one number per query and row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...attention.layout import AttentionLayout, attention_layout
from .. import attention as operators
from .launch import TYPES, fits, power_of_two, precision, product
from .positions import position_terms, windows_across, windows_of
from .tuning import attention_tile


@triton.jit
def _load_rows(data, padding, token, real, wanted, stride, first, channels, CHANNELS: tl.constexpr):
    """Channels of one head, of tokens (T,) that are wanted: their own if they are real, those of padding if not."""
    channel = tl.arange(0, CHANNELS)
    place = token.to(tl.int64)[:, None] * stride + first + channel[None, :]
    rows = tl.load(data + place, mask=real[:, None] & (channel < channels)[None, :], other=0.0)
    if padding is not None:
        filling = tl.load(padding + first + channel, mask=channel < channels, other=0.0)
        rows = tl.where((wanted & ~real)[:, None], filling.to(rows.dtype)[None, :], rows)
    return rows


@triton.jit
def _attend(
    q, k, v, key_padding, value_padding, terms, touched, listed, listed_count, out, sums, normalisers, references,
    drift, q_stream, q_token, kv_stream, kv_token, scale, heads, channels, tokens, height, width, out_width,
    WINDOW: tl.constexpr, WINDOWS_ACROSS: tl.constexpr, WINDOWS: tl.constexpr,
    QUERY_COLUMNS: tl.constexpr, GROUP_QUERIES: tl.constexpr, KEY_ROWS: tl.constexpr, KEY_COLUMNS: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, TILE_COLUMNS: tl.constexpr, CHANNELS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of queries of one head and group (a window, or the whole grid) against all keys of the group.

    Writes attention into `out` (B, N, D), or sums into the state of `exact` attention.
    """
    head, group = tl.program_id(1), tl.program_id(2)
    stream = (group // WINDOWS).to(tl.int64)
    pair = stream * heads + head
    tile = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    top, left = 0, 0  # of the window
    if WINDOW:
        if touched is not None:
            if tl.load(touched + group) == 0:
                return
        top, left = group % WINDOWS // WINDOWS_ACROSS * WINDOW, group % WINDOWS_ACROSS * WINDOW
        query_y, query_x = top + tile // QUERY_COLUMNS, left + tile % QUERY_COLUMNS
        is_query = (tile < GROUP_QUERIES) & (query_y < height) & (query_x < width)
        token = query_y * width + query_x
    elif listed is not None:
        count = tl.load(listed_count + pair)
        if tl.program_id(0) * QUERIES >= count:
            return
        is_query = tile < count
        token = tl.load(listed + pair * tokens + tile, mask=is_query, other=0)
    else:
        is_query = tile < tokens
        token = tile
    token = tl.where(is_query, token, 0)
    first = head * channels
    query = _load_rows(q + stream * q_stream, None, token, is_query, is_query, q_token, first, channels, CHANNELS)
    keys, values = k + stream * kv_stream, v + stream * kv_stream
    TILE_ROWS: tl.constexpr = KEYS // TILE_COLUMNS
    TILES_ACROSS: tl.constexpr = (KEY_COLUMNS + TILE_COLUMNS - 1) // TILE_COLUMNS
    TILES: tl.constexpr = (KEY_ROWS + TILE_ROWS - 1) // TILE_ROWS * TILES_ACROSS
    in_tile = tl.arange(0, KEYS)
    term = terms
    columns_term = tl.zeros((QUERIES, KEYS), tl.float32)
    if terms is not None:
        term = terms + (pair * tokens + token)[:, None] * (KEY_ROWS + KEY_COLUMNS)
        if TILES_ACROSS == 1:
            column = in_tile % TILE_COLUMNS
            wanted = is_query[:, None] & (column < KEY_COLUMNS)[None, :]
            columns_term = tl.load(term + KEY_ROWS + column[None, :], mask=wanted, other=0.0)
    reference = tl.full((QUERIES,), float("-inf"), tl.float32)
    normaliser = tl.zeros((QUERIES,), tl.float32)
    total = tl.zeros((QUERIES, CHANNELS), tl.float32)
    for number in range(0, TILES):
        row = number // TILES_ACROSS * TILE_ROWS + in_tile // TILE_COLUMNS
        column = number % TILES_ACROSS * TILE_COLUMNS + in_tile % TILE_COLUMNS
        is_key = (row < KEY_ROWS) & (column < KEY_COLUMNS)
        if WINDOW:
            key_y, key_x = top + row, left + column
            is_real = is_key & (key_y < height) & (key_x < width)
            key = key_y * width + key_x
        else:
            is_real = is_key
            key = row * KEY_COLUMNS + column
        key_rows = _load_rows(keys, key_padding, key, is_real, is_key, kv_token, first, channels, CHANNELS)
        scores = product(query, tl.trans(key_rows), tl.zeros((QUERIES, KEYS), tl.float32), PRECISION) * scale
        if terms is not None:
            if TILE_ROWS == 1:
                scores += tl.load(term + number // TILES_ACROSS, mask=is_query[:, None], other=0.0)
            else:
                scores += tl.load(term + row[None, :], mask=is_query[:, None] & is_key[None, :], other=0.0)
            if TILES_ACROSS == 1:
                scores += columns_term
            else:
                wanted = is_query[:, None] & is_key[None, :]
                scores += tl.load(term + KEY_ROWS + column[None, :], mask=wanted, other=0.0)
        scores = tl.where(is_key[None, :], scores, float("-inf"))
        highest = tl.maximum(reference, tl.max(scores, axis=1))
        weights = tl.exp(scores - highest[:, None])
        shrunk = tl.exp(reference - highest)
        normaliser = normaliser * shrunk + tl.sum(weights, axis=1)
        value_rows = _load_rows(values, value_padding, key, is_real, is_key, kv_token, first, channels, CHANNELS)
        total = product(weights.to(value_rows.dtype), value_rows, total * shrunk[:, None], PRECISION)
        reference = highest
    channel = tl.arange(0, CHANNELS)[None, :]
    inside = is_query[:, None] & (channel < channels)
    if out is not None:
        place = (stream * tokens + token)[:, None] * out_width + first + channel
        tl.store(out + place, (total / normaliser[:, None]).to(out.dtype.element_ty), mask=inside)
    else:
        place = pair * tokens + token
        tl.store(sums + place[:, None] * channels + channel, total, mask=inside)
        tl.store(normalisers + place, normaliser, mask=is_query)
        tl.store(references + place, reference, mask=is_query)
        tl.store(drift + place, 1.0, mask=is_query)


@triton.jit
def _touch(
    index, used, touched, counts, most, tokens, width,
    WINDOW: tl.constexpr, WINDOWS_ACROSS: tl.constexpr, WINDOWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Mark the windows of selected tokens, and count them for each stream."""
    if used is not None:
        most = tl.minimum(most, tl.load(used).to(tl.int32))
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < most
    place = tl.load(index + place, mask=inside, other=0)
    stream, token = place // tokens, place % tokens
    window = token // width // WINDOW * WINDOWS_ACROSS + token % width // WINDOW
    is_first = inside & (tl.atomic_xchg(touched + stream * WINDOWS + window, 1, mask=inside, sem="relaxed") == 0)
    tl.atomic_add(counts + stream, is_first.to(tl.int64), mask=is_first, sem="relaxed")


@dataclass(frozen=True)
class Attention:
    """Arguments of the kernel that all of its uses have in common."""

    q: Tensor
    """(B, N, D); tokens may lie apart."""
    k: Tensor
    v: Tensor
    """(B, S, D), lying in the same way as each other."""
    tables: Sequence[Tensor]
    heads: int
    scale: float
    layout: AttentionLayout
    padding: Sequence[Tensor] | None = None
    """Keys and values of tokens that fill up windows, (D,) each; None: zeros."""
    touched: Tensor | None = None
    """(B, windows) int32, the windows to compute; None: all."""

    @property
    def channels(self) -> int:
        """d, channels of a head."""
        return self.q.shape[-1] // self.heads

    def terms(self) -> Tensor | None:
        """What relative positions add to the scores (positions.py)."""
        return position_terms(self.q, self.tables, self.heads, self.layout, self.touched)

    def run(
        self, terms: Tensor | None, out: Tensor | None = None, state: Sequence[Tensor] | None = None,
        listed: tuple[Tensor, Tensor] | None = None,
    ) -> None:  # fmt: skip
        """Compute attention into `out`, or sums into `state`; of all queries, or of listed ones.

        Args:
            terms: as `terms()` gave them.
            listed: tokens (B, H, N) int32, of which the first (B, H) int32 count.
        """
        layout, (streams, tokens, dim) = self.layout, self.q.shape
        group_queries = layout.query_grid[0] * layout.query_grid[1]
        sizes = attention_tile(self.q.dtype, self.channels, 0 if listed else group_queries)
        key_rows, key_columns = layout.key_grid
        if terms is None and not layout.window:  # nothing depends on where a key lies
            key_rows, key_columns = 1, layout.keys
        sizes["TILE_COLUMNS"] = min(sizes["KEYS"], power_of_two(key_columns))
        no_list = (None, None)
        grid = (triton.cdiv(group_queries, sizes["QUERIES"]), self.heads, streams * windows_of(layout))
        _attend[grid](
            self.q, self.k, self.v, *(self.padding or (None, None)), terms, self.touched, *(listed or no_list), out,
            *(state or (None,) * 4), self.q.stride(0), self.q.stride(1), self.k.stride(0), self.k.stride(1), self.scale,
            self.heads, self.channels, tokens, *layout.grid, dim,
            WINDOW=layout.window, WINDOWS_ACROSS=windows_across(layout), WINDOWS=windows_of(layout),
            QUERY_COLUMNS=layout.query_grid[1], GROUP_QUERIES=group_queries, KEY_ROWS=key_rows, KEY_COLUMNS=key_columns,
            CHANNELS=power_of_two(self.channels), PRECISION=precision(self.q.dtype), **sizes,
        )  # fmt: skip


def can_attend(q: Tensor, heads: int, layout: AttentionLayout) -> bool:
    """Whether the kernel takes such queries."""
    dim = q.shape[-1]
    return q.dtype in TYPES and q.shape[1] == layout.tokens and dim % heads == 0 and dim // heads <= 256 and len(q) > 0


def attend(
    qkv: Tensor, padding: Tensor | None, tables: Sequence[Tensor], heads: int, scale: float, layout: Sequence[int],
    dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    layout = attention_layout(*layout)
    q, k, v = qkv.chunk(3, dim=-1)
    if not (fits(qkv) and dtype in TYPES and can_attend(q, heads, layout)):
        return NotImplemented
    out = torch.empty(q.shape, dtype=dtype, device=q.device)
    if layout.pool > 1:
        k, v = layout.pool_keys(qkv[..., q.shape[-1] :]).chunk(2, dim=-1)
    attention = Attention(q, k, v, tables, heads, scale, layout, _key_padding(padding))
    attention.run(attention.terms(), out)
    return out


def attend_windows(
    qkv: Tensor, index: Tensor, used: Tensor | None, out: Tensor, padding: Tensor | None, tables: Sequence[Tensor],
    heads: int, scale: float, layout: Sequence[int],
) -> Tensor:  # fmt: skip
    layout = attention_layout(*layout)
    q, k, v = qkv.chunk(3, dim=-1)
    if not (fits(qkv, out) and layout.window and can_attend(q, heads, layout)):
        return NotImplemented
    # One piece of memory, set to zero in one go.
    streams, windows = len(qkv), layout.windows
    flags = torch.zeros(2 * streams + streams * windows, dtype=torch.int32, device=qkv.device)
    counts, touched = flags[: 2 * streams].view(torch.int64), flags[2 * streams :].view(streams, windows)
    if len(index):
        _touch[(triton.cdiv(len(index), 256),)](
            index, used, touched, counts, len(index), layout.tokens, layout.grid[1], WINDOW=layout.window,
            WINDOWS_ACROSS=windows_across(layout), WINDOWS=windows, BLOCK=256,
        )  # fmt: skip
    attention = Attention(q, k, v, tables, heads, scale, layout, _key_padding(padding), touched)
    attention.run(attention.terms(), out)
    return counts


def _key_padding(padding: Tensor | None) -> Sequence[Tensor] | None:
    return None if padding is None else padding.chunk(3)[1:]


IMPLEMENTATIONS = {operators.attend: attend, operators.attend_windows: attend_windows}
