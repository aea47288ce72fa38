"""Sums of `exact` attention on a GPU (attention/exact.py). How many keys changed and which queries can no longer be
relied upon are numbers in memory, so nothing waits for the host."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...attention.layout import attention_layout
from .. import attention as operators
from .attention import LOG2_E, Attention, can_attend, load_rows
from .launch import TYPES, fits, power_of_two, precision, product
from .positions import LARGEST, add_terms, load_terms, position_pattern
from .tuning import exchange_tile

CHUNK = 4096
"""Tokens that are listed at a time."""
VALUES = 4096
"""Values that a program divides."""


@triton.jit
def _mark(index, offsets, streams, changed, BLOCK: tl.constexpr):
    """Mark tokens with new queries."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < tl.load(offsets + streams).to(tl.int32)
    tl.store(changed + tl.load(index + place, mask=inside, other=0), 1, mask=inside)


@triton.jit
def _weigh_keys(
    query, keys, values, row, is_key, stride, first, start, unit, reference,
    HEAD_CHANNELS: tl.constexpr, CHANNELS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Scores of a tile of keys, what their softmax makes of them before it is divided, and the keys' values."""
    rows = load_rows(keys, None, row, is_key, is_key, stride, first, True, HEAD_CHANNELS, CHANNELS)
    scores = product(query, tl.trans(rows), start, PRECISION)
    scores = tl.where(is_key[None, :], scores, float("-inf"))
    weights = tl.exp2(scores * unit - reference[:, None])
    rows = load_rows(values, None, row, is_key, is_key, stride, first, True, HEAD_CHANNELS, CHANNELS)
    return scores, weights, rows


@triton.jit
def _with_drift(normalisers, drift, place, is_query, added, removed, accumulation):
    """Normalisers after an exchange of terms, and the errors that sums have gathered, relative to them."""
    before = tl.load(normalisers + place, mask=is_query, other=1.0)
    after = before + (added - removed)
    error = tl.load(drift + place, mask=is_query, other=1.0) * before + (added + removed)
    return after, (error + accumulation * tl.abs(after)) / after


@triton.jit
def _exchange(
    q, k, v, old, keys, key_offsets, changed, terms, pattern, sums, normalisers, references, drift, unreliable,
    q_stream, q_token, kv_stream, kv_token, scale, heads, tokens, key_count, most_keys,
    score_limit, drift_limit, accumulation,
    POSITIONS_USED: tl.constexpr, POSITIONS: tl.constexpr, IN_PARTS: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, HEAD_CHANNELS: tl.constexpr, CHANNELS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Take the old terms of a stream's changed keys out of the sums of a tile of unchanged queries, and add the new
    ones. Mark queries whose sums have to be computed again: changed ones, and those that drifted too far."""
    head, stream = tl.program_id(1), tl.program_id(2).to(tl.int64)
    first_key, last_key = tl.load(key_offsets + stream), tl.load(key_offsets + stream + 1)
    if first_key == last_key:
        return
    pair = stream * heads + head
    token = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    is_query = token < tokens
    place = pair * tokens + token
    if last_key - first_key > most_keys:
        tl.store(unreliable + place, 1, mask=is_query)
        return
    first = head * HEAD_CHANNELS
    is_changed = tl.load(changed + stream * tokens + token, mask=is_query, other=0) != 0
    query = load_rows(
        q + stream * q_stream, None, token, is_query, is_query, q_token, first, True, HEAD_CHANNELS, CHANNELS
    )  # fmt: skip
    reference = tl.load(references + place, mask=is_query, other=0.0)
    total = tl.zeros((QUERIES, CHANNELS), tl.float32)
    added = tl.zeros((QUERIES,), tl.float32)
    removed = tl.zeros((QUERIES,), tl.float32)
    highest = tl.full((QUERIES,), float("-inf"), tl.float32)
    query_terms, low_terms = query, query
    if terms is not None:
        query_terms, low_terms = load_terms(
            terms, place, is_query, POSITIONS_USED, POSITIONS, IN_PARTS, pattern.dtype.element_ty
        )  # fmt: skip
    k += stream * kv_stream
    v += stream * kv_stream
    old_stride = 2 * heads * HEAD_CHANNELS  # keys, then values, of all heads
    old_keys = old + first_key * old_stride
    old_values = old_keys + heads * HEAD_CHANNELS
    keys += first_key
    count = (last_key - first_key).to(tl.int32)
    unit = scale * LOG2_E
    lowered = reference * LOG2_E
    for begin in range(0, count, KEYS):
        number = begin + tl.arange(0, KEYS)
        is_key = number < count
        key = (tl.load(keys + number, mask=is_key, other=stream * key_count) - stream * key_count).to(tl.int32)
        start = tl.zeros((QUERIES, KEYS), tl.float32)
        if terms is not None:
            ones = load_rows(pattern, None, key, is_key, is_key, POSITIONS, 0, True, POSITIONS, POSITIONS)
            start = add_terms(query_terms, low_terms, ones, start, IN_PARTS, PRECISION)
        scores, weights, rows = _weigh_keys(query, k, v, key, is_key, kv_token, first, start, unit, lowered,
                                            HEAD_CHANNELS, CHANNELS, PRECISION)  # fmt: skip
        highest = tl.maximum(highest, tl.max(scores, axis=1))
        added += tl.sum(weights, axis=1)
        total = product(weights.to(rows.dtype), rows, total, PRECISION)
        _, weights, rows = _weigh_keys(query, old_keys, old_values, number, is_key, old_stride, first, start, unit,
                                       lowered, HEAD_CHANNELS, CHANNELS, PRECISION)  # fmt: skip
        removed += tl.sum(weights, axis=1)
        total = product((-weights).to(rows.dtype), rows, total, PRECISION)
    after, error = _with_drift(normalisers, drift, place, is_query, added, removed, accumulation)
    # Written so that NaN, infinity and a normaliser below zero count as drifted.
    is_reliable = (after > 0) & (error <= drift_limit) & (highest * scale - reference <= score_limit)
    if v.dtype.element_ty == tl.float16:  # weights were multiplied in it: none above the largest number
        is_reliable &= (added <= LARGEST) & (removed <= LARGEST)
    kept = is_query & is_reliable & ~is_changed
    channel = tl.arange(0, CHANNELS)[None, :]
    sum_place = sums + place[:, None] * HEAD_CHANNELS + channel
    inside = kept[:, None] & (channel < HEAD_CHANNELS)
    tl.store(sum_place, tl.load(sum_place, mask=inside, other=0.0) + total, mask=inside)
    tl.store(normalisers + place, after, mask=kept)
    tl.store(drift + place, error, mask=kept)
    tl.store(unreliable + place, 1, mask=is_query & ~kept)


@triton.jit
def _list(flags, listed, counts, tokens, BLOCK: tl.constexpr):
    """The marked tokens of a head and stream, ascending, and their number."""
    pair = tl.program_id(0).to(tl.int64)
    count = tl.zeros((), tl.int32)
    for start in range(0, tokens, BLOCK):
        token = start + tl.arange(0, BLOCK)
        marked = tl.load(flags + pair * tokens + token, mask=token < tokens, other=0).to(tl.int32)
        rank = count + tl.cumsum(marked, axis=0) - 1
        tl.store(listed + pair * tokens + rank, token, mask=marked != 0)
        count += tl.sum(marked, axis=0)
    tl.store(counts + pair, count)


@triton.jit
def _count(offsets, key_offsets, counts, executed, heads, tokens, most_keys, HEADS: tl.constexpr):
    """What was executed for a stream: pairs of a head and a query exchanged, and recomputed."""
    stream = tl.program_id(0)
    head = tl.arange(0, HEADS)
    recomputed = tl.sum(tl.load(counts + stream * heads + head, mask=head < heads, other=0), axis=0)
    changed_keys = tl.load(key_offsets + stream + 1) - tl.load(key_offsets + stream)
    changed = tl.load(offsets + stream + 1) - tl.load(offsets + stream)
    exchanges = (changed_keys > 0) & (changed_keys <= most_keys)
    tl.store(executed + 2 * stream, tl.where(exchanges, heads * (tokens - changed), 0))
    tl.store(executed + 2 * stream + 1, recomputed)


@triton.jit
def _divide(sums, normalisers, out, rows, heads, tokens, channels, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, CHANNELS)[None, :]
    inside = (row < rows)[:, None] & (channel < channels)
    values = tl.load(sums + row[:, None] * channels + channel, mask=inside, other=0.0)
    values /= tl.load(normalisers + row, mask=row < rows, other=1.0)[:, None]
    stream, head, token = row // (heads * tokens), row // tokens % heads, row % tokens
    place = ((stream * tokens + token) * heads + head)[:, None] * channels + channel
    tl.store(out + place, values.to(out.dtype.element_ty), mask=inside)


def update_sums(
    q: Tensor, kv: Tensor, change: Sequence[Tensor], state: Sequence[Tensor], tables: Sequence[Tensor], heads: int,
    scale: float, layout: Sequence[int],
) -> Tensor:  # fmt: skip
    layout, (streams, tokens, _) = attention_layout(*layout), q.shape
    can_read = q.dtype in TYPES and kv.dtype == q.dtype and q.stride(-1) == kv.stride(-1) == 1 and fits(*state)
    if not (can_read and state[0].dtype is torch.float32 and can_attend(q, heads, layout)):
        return NotImplemented
    attention = Attention(q, *kv.chunk(2, dim=-1), tables, heads, scale, layout)
    terms = attention.terms()
    if not change:
        attention.run(terms, state=state)
        executed = torch.zeros(streams, 2, dtype=torch.int64, device=q.device)
        executed[:, 1] = heads * tokens
        return executed
    index, offsets, keys, key_offsets, old = change
    if old.dtype != q.dtype or not old.is_contiguous():
        return NotImplemented
    # More changed keys than this, and everything is recomputed.
    most_keys = int(operators.DENSE_ABOVE * layout.keys)
    unreliable = _exchange_all(attention, terms, change, state, most_keys)
    listed = torch.empty(streams, heads, tokens, dtype=torch.int32, device=q.device)
    counts = torch.empty(streams, heads, dtype=torch.int32, device=q.device)
    _list[(streams * heads,)](unreliable, listed, counts, tokens, BLOCK=min(CHUNK, power_of_two(tokens)))
    attention.run(terms, state=state, listed=(listed, counts))
    executed = torch.empty(streams, 2, dtype=torch.int64, device=q.device)
    _count[(streams,)](offsets, key_offsets, counts, executed, heads, tokens, most_keys, HEADS=power_of_two(heads))
    return executed


def _exchange_all(
    attention: Attention, terms: Tensor | None, change: Sequence[Tensor], state: Sequence[Tensor], most_keys: int
) -> Tensor:
    """Exchange the terms of changed keys in the sums of all other queries; returns the queries that need new sums,
    (B, H, N)."""
    q, k, heads = attention.q, attention.k, attention.heads
    streams, tokens, _ = q.shape
    index, offsets, keys, key_offsets, old = change
    # One piece of memory, set to zero in one go.
    flags = torch.zeros(streams * (heads + 1) * tokens, dtype=torch.int8, device=q.device)
    unreliable, changed = flags.split([streams * heads * tokens, streams * tokens])
    if len(index):
        _mark[(triton.cdiv(len(index), 256),)](index, offsets, streams, changed, BLOCK=256)
    sizes = exchange_tile(q.dtype, attention.channels)
    positions = sum(attention.layout.key_grid)
    pattern = None if terms is None else position_pattern(attention.layout, q)
    _exchange[(triton.cdiv(tokens, sizes["QUERIES"]), heads, streams)](
        q, k, attention.v, old, keys, key_offsets, changed, terms, pattern, *state, unreliable, q.stride(0),
        q.stride(1), k.stride(0), k.stride(1), attention.scale, heads, tokens, attention.layout.keys, most_keys,
        operators.SCORE_LIMIT, operators.DRIFT_LIMIT, operators.ACCUMULATION, POSITIONS_USED=positions,
        POSITIONS=power_of_two(positions), IN_PARTS=q.dtype is torch.float16, HEAD_CHANNELS=attention.channels,
        CHANNELS=power_of_two(attention.channels), PRECISION=precision(q.dtype), **sizes,
    )  # fmt: skip
    return unreliable


def divide(sums: Tensor, normalisers: Tensor, dtype: torch.dtype) -> Tensor:
    if not (fits(sums, normalisers) and dtype in TYPES):
        return NotImplemented
    streams, heads, tokens, channels = sums.shape
    out = torch.empty(streams, tokens, heads * channels, dtype=dtype, device=sums.device)
    columns = power_of_two(channels)
    rows = max(1, VALUES // columns)
    if normalisers.numel():
        _divide[(triton.cdiv(normalisers.numel(), rows),)](
            sums, normalisers, out, normalisers.numel(), heads, tokens, channels, ROWS=rows, CHANNELS=columns
        )
    return out


IMPLEMENTATIONS = {operators.update_sums: update_sums, operators.divide: divide}
