"""Attention on a GPU: one kernel for whole frames, for windows, and for the queries that need new sums.

A program takes a tile of queries past all of their keys, so that scores never leave the chip. With relative positions,
a tile of keys of the whole grid is a row of it, or a piece of one: the term along columns is then the same for each
tile, and the term along rows is one number for each query. In windows, and on narrow grids, the terms are added by a
product (positions.py).
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
from ..linear import rounded
from .launch import TYPES, fits, power_of_two, precision, product
from .positions import (
    add_terms,
    load_terms,
    position_pattern,
    position_terms,
    windows_across,
    windows_of,
)
from .tuning import attention_tile, split_keys

LOG2_E = tl.constexpr(1.4426950408889634)
"""Weights are powers of two: a GPU has no faster exponential."""
MOST_VALUES = 2**31
"""Values of a stream that 32 bits can count."""
MOST_GROUPS = 2**16
"""Below this is how many programs a GPU counts along a launch's last two dimensions."""
MERGED = 16
"""Queries whose parts a program puts together."""


@triton.jit
def load_rows(
    data, padding, token, real, wanted, stride, first,
    MASKED: tl.constexpr, HEAD_CHANNELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Channels of one head, of tokens (T,) that are wanted: their own if they are real, those of padding if not.

    Args:
        MASKED: whether some are not real, or not wanted.
    """
    channel = tl.arange(0, CHANNELS)
    place = data + token[:, None] * stride + (first + channel)[None, :]
    if padding is not None:
        place = tl.where(real[:, None], place, padding + (first + channel)[None, :])
        real = wanted
    if HEAD_CHANNELS < CHANNELS:
        rows = tl.load(place, mask=real[:, None] & (channel < HEAD_CHANNELS)[None, :], other=0.0)
    elif MASKED:
        rows = tl.load(place, mask=real[:, None], other=0.0)
    else:
        rows = tl.load(place)
    return rows


@triton.jit
def _part_of_work(listed_count, pair, most_split, SPLITS: tl.constexpr):
    """Which tile of queries a program takes, past which part of their keys, and whether keys are split at all."""
    tile, part, is_split = tl.program_id(0), 0, False
    if SPLITS > 1:
        # Not as branches: Triton 3.4 cannot compile one that gives values in a kernel that may end early.
        is_split = tl.load(listed_count + pair) <= most_split
        part = tl.where(is_split, tile % SPLITS, 0)
        tile = tl.where(is_split, tile // SPLITS, tile)
    return tile, part, is_split


@triton.jit
def _queries_of_tile(
    place, count, listed, list_start, top, left, height, width, WINDOW: tl.constexpr, QUERY_COLUMNS: tl.constexpr
):  # fmt: skip
    """Tokens (T,) at places of a group or of a list, and which of them are queries; 0 for those that are not."""
    if WINDOW:
        query_y, query_x = top + place // QUERY_COLUMNS, left + place % QUERY_COLUMNS
        is_query = (place < count) & (query_y < height) & (query_x < width)
        token = query_y * width + query_x
    else:
        is_query = place < count
        token = place if listed is None else tl.load(listed + list_start + place, mask=is_query, other=0)
    return tl.where(is_query, token, 0), is_query


@triton.jit
def _keys_of_tile(
    number, in_tile, BY_ROWS: tl.constexpr, ACROSS: tl.constexpr, KEY_ROWS: tl.constexpr, KEY_COLUMNS: tl.constexpr,
    KEYS: tl.constexpr,
):  # fmt: skip
    """Places (T,) in their group of a tile's keys, and which of them are keys."""
    if BY_ROWS:
        column = number % ACROSS * KEYS + in_tile
        is_key = column < KEY_COLUMNS
        key = number // ACROSS * KEY_COLUMNS + column
    else:
        key = number * KEYS + in_tile
        is_key = key < KEY_ROWS * KEY_COLUMNS
    return key, is_key


@triton.jit
def _tokens_of_keys(key, is_key, top, left, height, width, WINDOW: tl.constexpr, KEY_COLUMNS: tl.constexpr):
    """Tokens (T,) at places of a group, and which of them are real: in windows, others are padding."""
    token, is_real = key, is_key
    if WINDOW:
        row, column = key // KEY_COLUMNS, key % KEY_COLUMNS
        is_real = is_key & (top + row < height) & (left + column < width)
        token = tl.where(is_real, (top + row) * width + left + column, 0)
    return token, is_real


@triton.jit
def _column_terms(
    terms, is_query, piece, KEY_ROWS: tl.constexpr, KEY_COLUMNS: tl.constexpr, KEYS: tl.constexpr
):  # fmt: skip
    """What relative positions along columns add to the scores of a row of keys, or of a piece of one."""
    column = piece * KEYS + tl.arange(0, KEYS)
    inside = is_query[:, None] & (column < KEY_COLUMNS)[None, :]
    return tl.load(terms[:, None] + (KEY_ROWS + column)[None, :], mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _next_weights(scores, reference, unit, terms, row, is_query, BY_ROWS: tl.constexpr):
    """Weights of a tile of keys by the largest score so far, the factor that brings earlier sums to it, and that score.

    Args:
        terms, row: where each query's terms lie, and the row of these keys, whose term their scores lack.
    """
    highest = tl.max(scores, axis=1)
    row_term = tl.zeros_like(highest)
    if BY_ROWS:
        row_term = tl.load(terms + row, mask=is_query, other=0.0).to(tl.float32)
        highest += row_term
    highest = tl.maximum(reference, highest)
    weights = tl.exp2(scores * unit - ((highest - row_term) * unit)[:, None])
    return weights, tl.exp2((reference - highest) * unit), highest


@triton.jit
def _keep(
    sums, normalisers, references, drift, place, is_query, inside, total, normaliser, reference,
    HEAD_CHANNELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Write sums that were just computed: into the state of `exact` attention, or parts of them, which have no drift.
    """
    channel = tl.arange(0, CHANNELS)[None, :]
    tl.store(sums + place[:, None] * HEAD_CHANNELS + channel, total, mask=inside)
    tl.store(normalisers + place, normaliser, mask=is_query)
    tl.store(references + place, reference, mask=is_query)
    if drift is not None:
        tl.store(drift + place, 1.0, mask=is_query)


@triton.jit
def _attend(
    q, k, v, key_padding, value_padding, terms, pattern, touched, listed, listed_count, out, sums, normalisers,
    references, drift, partial_sums, partial_normalisers, partial_references, most_split, q_stream, q_token, kv_stream,
    kv_token, scale, heads, tokens, height, width, out_width,
    WINDOW: tl.constexpr, WINDOWS_ACROSS: tl.constexpr, WINDOWS: tl.constexpr,
    QUERY_COLUMNS: tl.constexpr, GROUP_QUERIES: tl.constexpr, KEY_ROWS: tl.constexpr, KEY_COLUMNS: tl.constexpr,
    BY_ROWS: tl.constexpr, POSITIONS: tl.constexpr, IN_PARTS: tl.constexpr, SPLITS: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr,
    HEAD_CHANNELS: tl.constexpr, CHANNELS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A tile of queries of one head and group (a window, or the whole grid) against all keys of the group.

    Writes attention into `out` (B, N, D), or sums into the state of `exact` attention.

    Args:
        BY_ROWS: a tile of keys is a row of the grid, or a piece of one. Otherwise keys come one after the other, and
            POSITIONS is the width of the matrix that adds their terms.
        SPLITS: of up to `most_split` listed queries, so many programs share the keys of a tile (`_merge`).
    """
    head, group = tl.program_id(1), tl.program_id(2)
    stream = (group // WINDOWS).to(tl.int64)
    pair = stream * heads + head
    tile, part, is_split = _part_of_work(listed_count, pair, most_split, SPLITS)
    query_place = tile * QUERIES + tl.arange(0, QUERIES)
    top, left, count = 0, 0, tokens
    if WINDOW:
        count = GROUP_QUERIES
        if touched is not None:
            if tl.load(touched + group) == 0:
                return
        top, left = group % WINDOWS // WINDOWS_ACROSS * WINDOW, group % WINDOWS_ACROSS * WINDOW
    elif listed is not None:
        count = tl.load(listed_count + pair)
        if tile * QUERIES >= count:
            return
    token, is_query = _queries_of_tile(
        query_place, count, listed, pair * tokens, top, left, height, width, WINDOW, QUERY_COLUMNS
    )  # fmt: skip
    first = head * HEAD_CHANNELS
    query = load_rows(
        q + stream * q_stream, None, token, is_query, is_query, q_token, first, True, HEAD_CHANNELS, CHANNELS
    )  # fmt: skip
    keys, values = k + stream * kv_stream, v + stream * kv_stream
    place = pair * tokens + token
    ACROSS: tl.constexpr = (KEY_COLUMNS + KEYS - 1) // KEYS if BY_ROWS else 1
    TILES: tl.constexpr = KEY_ROWS * ACROSS if BY_ROWS else (KEY_ROWS * KEY_COLUMNS + KEYS - 1) // KEYS
    RAGGED: tl.constexpr = (KEY_COLUMNS if BY_ROWS else KEY_ROWS * KEY_COLUMNS) % KEYS != 0
    MASKED: tl.constexpr = RAGGED or (WINDOW > 0 and key_padding is None)
    in_tile = tl.arange(0, KEYS)
    start = tl.zeros((QUERIES, KEYS), tl.float32)  # of a tile's scores
    query_terms, low_terms = query, query
    if BY_ROWS:
        terms += place * (KEY_ROWS + KEY_COLUMNS)
        if ACROSS == 1:
            start = _column_terms(terms, is_query, 0, KEY_ROWS, KEY_COLUMNS, KEYS)
    elif terms is not None:
        query_terms, low_terms = load_terms(
            terms, place, is_query, KEY_ROWS + KEY_COLUMNS, POSITIONS, IN_PARTS, pattern.dtype.element_ty
        )  # fmt: skip
    reference = tl.full((QUERIES,), float("-inf"), tl.float32)
    normaliser = tl.zeros((QUERIES,), tl.float32)
    total = tl.zeros((QUERIES, CHANNELS), tl.float32)
    unit = scale * LOG2_E
    first_tile, last_tile = 0, TILES
    if SPLITS > 1:
        first_tile = part * TILES // SPLITS
        last_tile = tl.where(is_split, (part + 1) * TILES // SPLITS, TILES)
    for number in range(first_tile, last_tile):
        key, is_key = _keys_of_tile(number, in_tile, BY_ROWS, ACROSS, KEY_ROWS, KEY_COLUMNS, KEYS)
        key_token, is_real = _tokens_of_keys(key, is_key, top, left, height, width, WINDOW, KEY_COLUMNS)
        key_rows = load_rows(
            keys, key_padding, key_token, is_real, is_key, kv_token, first, MASKED, HEAD_CHANNELS, CHANNELS
        )  # fmt: skip
        scores = start
        if BY_ROWS:
            if ACROSS > 1:
                scores = _column_terms(terms, is_query, number % ACROSS, KEY_ROWS, KEY_COLUMNS, KEYS)
        elif terms is not None:
            ones = load_rows(pattern, None, key, is_key, is_key, POSITIONS, 0, RAGGED, POSITIONS, POSITIONS)
            scores = add_terms(query_terms, low_terms, ones, scores, IN_PARTS, PRECISION)
        scores = product(query, tl.trans(key_rows), scores, PRECISION)
        if RAGGED:
            scores = tl.where(is_key[None, :], scores, float("-inf"))
        weights, shrunk, reference = _next_weights(
            scores, reference, unit, terms, number // ACROSS, is_query, BY_ROWS
        )  # fmt: skip
        normaliser = normaliser * shrunk + tl.sum(weights, axis=1)
        value_rows = load_rows(
            values, value_padding, key_token, is_real, is_key, kv_token, first, MASKED, HEAD_CHANNELS, CHANNELS
        )  # fmt: skip
        total = product(weights.to(value_rows.dtype), value_rows, total * shrunk[:, None], PRECISION)
    channel = tl.arange(0, CHANNELS)[None, :]
    inside = is_query[:, None] & (channel < HEAD_CHANNELS)
    if out is not None:
        row_of_out = (stream * tokens + token)[:, None] * out_width + first + channel
        tl.store(out + row_of_out, (total / normaliser[:, None]).to(out.dtype.element_ty), mask=inside)
    elif SPLITS > 1:
        if is_split:
            place = (pair * most_split + query_place) * SPLITS + part
            _keep(partial_sums, partial_normalisers, partial_references, None, place, is_query, inside, total,
                  normaliser, reference, HEAD_CHANNELS, CHANNELS)  # fmt: skip
        else:
            _keep(sums, normalisers, references, drift, place, is_query, inside, total, normaliser, reference * scale,
                  HEAD_CHANNELS, CHANNELS)  # fmt: skip
    else:
        _keep(sums, normalisers, references, drift, place, is_query, inside, total, normaliser, reference * scale,
              HEAD_CHANNELS, CHANNELS)  # fmt: skip


@triton.jit
def _merge(
    listed, listed_count, partial_sums, partial_normalisers, partial_references, most_split, sums, normalisers,
    references, drift, scale, tokens,
    SPLITS: tl.constexpr, QUERIES: tl.constexpr, HEAD_CHANNELS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Put the parts of split sums together, in the state."""
    pair = tl.program_id(1).to(tl.int64)
    count = tl.load(listed_count + pair)
    if count > most_split:
        return
    number = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    if tl.program_id(0) * QUERIES >= count:
        return
    inside = number < count
    channel = tl.arange(0, CHANNELS)[None, :]
    first = (pair * most_split + number) * SPLITS
    reference = tl.full((QUERIES,), float("-inf"), tl.float32)
    for part in tl.static_range(SPLITS):
        reference = tl.maximum(reference, tl.load(partial_references + first + part, mask=inside, other=0.0))
    total = tl.zeros((QUERIES, CHANNELS), tl.float32)
    normaliser = tl.zeros((QUERIES,), tl.float32)
    for part in tl.static_range(SPLITS):
        lowered = tl.load(partial_references + first + part, mask=inside, other=0.0) - reference
        share = tl.exp2(lowered * (scale * LOG2_E))
        normaliser += share * tl.load(partial_normalisers + first + part, mask=inside, other=0.0)
        values = partial_sums + (first + part)[:, None] * HEAD_CHANNELS + channel
        total += share[:, None] * tl.load(values, mask=inside[:, None] & (channel < HEAD_CHANNELS), other=0.0)
    place = pair * tokens + tl.load(listed + pair * tokens + number, mask=inside, other=0)
    _keep(sums, normalisers, references, drift, place, inside, inside[:, None] & (channel < HEAD_CHANNELS), total,
          normaliser, reference * scale, HEAD_CHANNELS, CHANNELS)  # fmt: skip


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
        return position_terms(self.q, self.tables, self.heads, self.scale, self.layout)

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
        by_rows = terms is not None and not layout.window and power_of_two(key_columns) >= sizes["KEYS"]
        pattern = None if terms is None or by_rows else position_pattern(layout, self.q)
        splits, most_split, partial = self._split(tokens) if listed else (1, 0, (None,) * 3)
        tiles = max(triton.cdiv(group_queries, sizes["QUERIES"]), triton.cdiv(most_split, sizes["QUERIES"]) * splits)
        grid = (tiles, self.heads, streams * windows_of(layout))
        _attend[grid](
            self.q, self.k, self.v, *(self.padding or (None, None)), terms, pattern, self.touched,
            *(listed or (None,) * 2), out, *(state or (None,) * 4), *partial, most_split, self.q.stride(0),
            self.q.stride(1), self.k.stride(0), self.k.stride(1), self.scale, self.heads, tokens, *layout.grid, dim,
            WINDOW=layout.window, WINDOWS_ACROSS=windows_across(layout), WINDOWS=windows_of(layout),
            QUERY_COLUMNS=layout.query_grid[1], GROUP_QUERIES=group_queries, KEY_ROWS=key_rows, KEY_COLUMNS=key_columns,
            BY_ROWS=by_rows, POSITIONS=power_of_two(key_rows + key_columns), IN_PARTS=self.q.dtype is torch.float16,
            SPLITS=splits, HEAD_CHANNELS=self.channels, CHANNELS=power_of_two(self.channels),
            PRECISION=precision(self.q.dtype), **sizes,
        )  # fmt: skip
        if splits > 1:
            _merge[(triton.cdiv(most_split, MERGED), streams * self.heads)](
                *listed, *partial, most_split, *state, self.scale, tokens, SPLITS=splits, QUERIES=MERGED,
                HEAD_CHANNELS=self.channels, CHANNELS=power_of_two(self.channels),
            )  # fmt: skip

    def _split(self, tokens: int) -> tuple[int, int, Sequence[Tensor | None]]:
        """Into how many parts the keys of listed queries are split, of how many queries at most, and memory for their
        sums, normalisers and references."""
        splits = split_keys(len(self.q), self.heads)
        most, pairs = tokens // splits, len(self.q) * self.heads
        if splits == 1 or not most:
            return 1, 0, (None, None, None)
        sizes = ((self.channels,), (), ())
        return (
            splits,
            most,
            [torch.empty(pairs, most, splits, *size, dtype=torch.float32, device=self.q.device) for size in sizes],
        )


def can_attend(q: Tensor, heads: int, layout: AttentionLayout) -> bool:
    """Whether the kernel takes such queries."""
    dim, reach = q.shape[-1], max(layout.tokens * q.stride(1), layout.keys * 2 * q.shape[-1])
    heads_fit = dim % heads == 0 and dim // heads <= 256
    programs_fit = 0 < len(q) * max(windows_of(layout), heads) < MOST_GROUPS
    return q.dtype in TYPES and q.shape[1] == layout.tokens and heads_fit and programs_fit and reach < MOST_VALUES


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
    attention = Attention(q, k, v, tables, heads, scale, layout, _key_padding(padding, qkv.dtype))
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
    attention = Attention(q, k, v, tables, heads, scale, layout, _key_padding(padding, qkv.dtype), touched)
    attention.run(attention.terms(), out)
    return counts


def _key_padding(padding: Tensor | None, dtype: torch.dtype) -> Sequence[Tensor] | None:
    return None if padding is None else rounded(padding, dtype).contiguous().chunk(3)[1:]


IMPLEMENTATIONS = {operators.attend: attend, operators.attend_windows: attend_windows}
