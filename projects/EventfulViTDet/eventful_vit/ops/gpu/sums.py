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
from .attention import Attention, can_attend
from .launch import TYPES, fits, power_of_two, precision, product
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
def _exchange(
    q, k, v, old, keys, key_offsets, changed, terms, sums, normalisers, references, drift, unreliable,
    q_stream, q_token, kv_stream, kv_token, scale, heads, channels, tokens, key_count, most_keys,
    score_limit, drift_limit, accumulation,
    KEY_ROWS: tl.constexpr, KEY_COLUMNS: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    CHANNELS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Take the old terms of a stream's changed keys out of the sums of a tile of unchanged queries, and add the new
    ones. Mark queries whose sums have to be computed again: changed ones, and those that drifted too far."""
    head, stream = tl.program_id(1), tl.program_id(2).to(tl.int64)
    first = tl.load(key_offsets + stream)
    last = tl.load(key_offsets + stream + 1)
    if first == last:
        return
    pair = stream * heads + head
    token = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    is_query = token < tokens
    place = pair * tokens + token
    if last - first > most_keys:
        tl.store(unreliable + place, 1, mask=is_query)
        return
    is_changed = tl.load(changed + stream * tokens + token, mask=is_query, other=0) != 0
    channel = tl.arange(0, CHANNELS)
    query_place = q + stream * q_stream + token.to(tl.int64)[:, None] * q_token + head * channels + channel[None, :]
    inside = is_query[:, None] & (channel < channels)[None, :]
    query = tl.load(query_place, mask=inside, other=0.0)
    reference = tl.load(references + place, mask=is_query, other=0.0)
    total = tl.zeros((QUERIES, CHANNELS), tl.float32)
    added = tl.zeros((QUERIES,), tl.float32)
    removed = tl.zeros((QUERIES,), tl.float32)
    highest = tl.full((QUERIES,), float("-inf"), tl.float32)
    term = terms
    if terms is not None:
        term = terms + place[:, None] * (KEY_ROWS + KEY_COLUMNS)
    for start in range(first, last, KEYS):
        number = start + tl.arange(0, KEYS)
        is_key = number < last
        key = tl.load(keys + number, mask=is_key, other=0) - stream * key_count
        both = is_query[:, None] & is_key[None, :]
        shift = -reference[:, None] + tl.zeros((QUERIES, KEYS), tl.float32)
        if terms is not None:
            shift += tl.load(term + (key // KEY_COLUMNS)[None, :], mask=both, other=0.0)
            shift += tl.load(term + KEY_ROWS + (key % KEY_COLUMNS)[None, :], mask=both, other=0.0)
        is_row = is_key[:, None] & (channel < channels)[None, :]
        new_place = stream * kv_stream + key[:, None] * kv_token + head * channels + channel[None, :]
        old_place = number[:, None] * (2 * heads * channels) + head * channels + channel[None, :]
        new_key = tl.load(k + new_place, mask=is_row, other=0.0)
        scores = product(query, tl.trans(new_key), tl.zeros((QUERIES, KEYS), tl.float32), PRECISION) * scale + shift
        scores = tl.where(is_key[None, :], scores, float("-inf"))
        highest = tl.maximum(highest, tl.max(scores, axis=1))
        weights = tl.exp(scores)
        added += tl.sum(weights, axis=1)
        new_value = tl.load(v + new_place, mask=is_row, other=0.0)
        total = product(weights.to(new_value.dtype), new_value, total, PRECISION)
        old_key = tl.load(old + old_place, mask=is_row, other=0.0)
        scores = product(query, tl.trans(old_key), tl.zeros((QUERIES, KEYS), tl.float32), PRECISION) * scale + shift
        scores = tl.where(is_key[None, :], scores, float("-inf"))
        weights = tl.exp(scores)
        removed += tl.sum(weights, axis=1)
        old_value = tl.load(old + old_place + heads * channels, mask=is_row, other=0.0)
        total = product((-weights).to(old_value.dtype), old_value, total, PRECISION)
    before = tl.load(normalisers + place, mask=is_query, other=1.0)
    after = before + (added - removed)
    error = tl.load(drift + place, mask=is_query, other=1.0) * before + (added + removed)
    error = (error + accumulation * tl.abs(after)) / after
    # Written so that NaN, infinity and a normaliser below zero count as drifted.
    is_reliable = (after > 0) & (error <= drift_limit) & (highest <= score_limit)
    kept = is_query & is_reliable & ~is_changed
    sum_place = sums + place[:, None] * channels + channel[None, :]
    inside = kept[:, None] & (channel < channels)[None, :]
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
    key_rows, key_columns = attention.layout.key_grid
    _exchange[(triton.cdiv(tokens, sizes["QUERIES"]), heads, streams)](
        q, k, attention.v, old, keys, key_offsets, changed, terms, *state, unreliable, q.stride(0), q.stride(1),
        k.stride(0), k.stride(1), attention.scale, heads, attention.channels, tokens, attention.layout.keys, most_keys,
        operators.SCORE_LIMIT, operators.DRIFT_LIMIT, operators.ACCUMULATION, KEY_ROWS=key_rows,
        KEY_COLUMNS=key_columns, CHANNELS=power_of_two(attention.channels), PRECISION=precision(q.dtype), **sizes,
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
