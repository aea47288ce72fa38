"""Choosing a gate's tokens on a GPU: exactly the largest norms, of equal ones the first, with all numbers in memory.

One program takes a stream and holds its norms in registers. It looks for the smallest chosen norm by dividing the range
of norms into three: a round counts how many norms reach each of the two values between, and costs little more than
waiting for all threads. The search ends as soon as one of them separates as many norms as are wanted.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import power_of_two


@triton.jit
def _keys(norms, place, tokens, threshold, flushes):
    """Norms as whole numbers of the same order; -1 for those that may not be chosen."""
    values = tl.load(norms + place, mask=place < tokens, other=0.0)
    values = tl.where(values == values, values, float("inf"))  # NaN counts as largest
    allowed = (place < tokens) & ((values > threshold) | flushes)
    return tl.where(allowed, values.to(tl.int32, bitcast=True), -1)


@triton.jit
def _numbers_from(keys, first, second):
    """How many keys are as large as two values or larger. One sum for both, as neither number reaches 2^16."""
    both = tl.sum((keys >= first).to(tl.int32) + ((keys >= second).to(tl.int32) << 16), axis=0)
    return both & 65535, both >> 16


@triton.jit
def _ends(keys):
    """How many keys may be chosen, the smallest of these, and the largest."""
    smallest = tl.min(tl.where(keys < 0, 2147483647, keys), axis=0)
    return tl.sum((keys >= 0).to(tl.int32), axis=0), smallest, tl.max(keys, axis=0)


@triton.jit
def _cutoff(norms, keys, tokens, count, threshold, flushes, BLOCK: tl.constexpr, PIECES: tl.constexpr):
    """What is chosen from a stream: all keys from `high` on, and the first of those from `low` on.

    Args:
        keys: (BLOCK,), those of the first of its pieces; the others are read again whenever they are needed.

    Returns:
        `low`, `high`, how many keys below `high` are taken, and how many keys are taken in all.
    """
    eligible, low, largest = _ends(keys)
    for piece in range(1, PIECES):
        more = _keys(norms, piece * BLOCK + tl.arange(0, BLOCK), tokens, threshold, flushes)
        number, least, most = _ends(more)
        eligible, low, largest = eligible + number, tl.minimum(low, least), tl.maximum(largest, most)
    chosen = tl.where(flushes, tokens, tl.minimum(count, eligible))
    high = largest + 1
    from_low, from_high = eligible, tl.zeros((), tl.int32)
    # As many keys as are wanted, or more, reach `low`, and fewer reach `high`.
    while (from_low > chosen) & (high - low > 1) & (chosen > 0):
        third = (high - low + 2) // 3
        first, second = low + third, low + 2 * third
        from_first, from_second = _numbers_from(keys, first, second)
        for piece in range(1, PIECES):
            more = _keys(norms, piece * BLOCK + tl.arange(0, BLOCK), tokens, threshold, flushes)
            more_from_first, more_from_second = _numbers_from(more, first, second)
            from_first, from_second = from_first + more_from_first, from_second + more_from_second
        if from_second >= chosen:
            low, from_low = second, from_second
        elif from_first >= chosen:
            low, from_low, high, from_high = first, from_first, tl.minimum(second, high), from_second
        else:
            high, from_high = first, from_first
    return low, high, chosen - from_high, chosen


@triton.jit
def _write(norms, keys, first, tokens, threshold, flushes, low, high, below, index, base, capacity,
           BLOCK: tl.constexpr, PIECES: tl.constexpr):  # fmt: skip
    """The places of a stream's chosen tokens, ascending, from `base` on; `below` of them have keys below `high`."""
    above_before = tl.zeros((), tl.int32)
    between_before = tl.zeros((), tl.int32)
    for piece in range(0, PIECES):
        place = piece * BLOCK + tl.arange(0, BLOCK)
        if piece > 0:
            keys = _keys(norms, place, tokens, threshold, flushes)
        above = keys >= high
        between = (keys >= low) & ~above
        # Both numbers in one, for one prefix sum: neither exceeds BLOCK.
        both = tl.cumsum(above.to(tl.int32) + (between.to(tl.int32) << 16), axis=0)
        number_above, number_between = above_before + (both & 65535), between_before + (both >> 16)
        taken = above | (between & (number_between <= below))
        rank = base + number_above + tl.minimum(number_between, below) - 1
        tl.store(index + rank, (first + place).to(tl.int64), mask=taken & (rank < capacity))
        if PIECES > 1:
            above_before += tl.sum(above.to(tl.int32), axis=0)
            between_before += tl.sum(between.to(tl.int32), axis=0)


@triton.jit
def _select_one(norms, count, threshold, flush, index, offsets, tokens, capacity,
                BLOCK: tl.constexpr, PIECES: tl.constexpr):  # fmt: skip
    """All of it for a single stream."""
    limit = tl.load(threshold)
    flushes = tl.full((), 0, tl.int1)
    if flush is not None:
        flushes = tl.load(flush) != 0
    keys = _keys(norms, tl.arange(0, BLOCK), tokens, limit, flushes)
    wanted = tl.load(count).to(tl.int32)
    low, high, below, chosen = _cutoff(norms, keys, tokens, wanted, limit, flushes, BLOCK, PIECES)
    _write(norms, keys, 0, tokens, limit, flushes, low, high, below, index, 0, capacity, BLOCK, PIECES)
    tl.store(offsets, 0)
    tl.store(offsets + 1, tl.minimum(chosen, capacity))


@triton.jit
def _find_cutoffs(norms, count, threshold, flush, cutoffs, tokens,
                  BLOCK: tl.constexpr, PIECES: tl.constexpr):  # fmt: skip
    """What is chosen from each of several streams: what `_cutoff` returns, (B, 4)."""
    stream = tl.program_id(0)
    limit = tl.load(threshold)
    flushes = tl.full((), 0, tl.int1)
    if flush is not None:
        flushes = tl.load(flush + stream) != 0
    norms += stream.to(tl.int64) * tokens
    keys = _keys(norms, tl.arange(0, BLOCK), tokens, limit, flushes)
    wanted = tl.load(count).to(tl.int32)
    low, high, below, chosen = _cutoff(norms, keys, tokens, wanted, limit, flushes, BLOCK, PIECES)
    tl.store(cutoffs + 4 * stream, low)
    tl.store(cutoffs + 4 * stream + 1, high)
    tl.store(cutoffs + 4 * stream + 2, below)
    tl.store(cutoffs + 4 * stream + 3, chosen)


@triton.jit
def _write_all(norms, threshold, flush, cutoffs, index, offsets, streams, tokens, capacity,
               STREAMS: tl.constexpr, BLOCK: tl.constexpr, PIECES: tl.constexpr):  # fmt: skip
    stream = tl.program_id(0)
    others = tl.arange(0, STREAMS)
    chosen = tl.load(cutoffs + 4 * others + 3, mask=others < streams, other=0)
    base = tl.sum(tl.where(others < stream, chosen, 0), axis=0)
    limit = tl.load(threshold)
    flushes = tl.full((), 0, tl.int1)
    if flush is not None:
        flushes = tl.load(flush + stream) != 0
    first = stream.to(tl.int64) * tokens
    keys = _keys(norms + first, tl.arange(0, BLOCK), tokens, limit, flushes)
    low, high = tl.load(cutoffs + 4 * stream), tl.load(cutoffs + 4 * stream + 1)
    below, number = tl.load(cutoffs + 4 * stream + 2), tl.load(cutoffs + 4 * stream + 3)
    _write(norms + first, keys, first, tokens, limit, flushes, low, high, below, index, base, capacity, BLOCK, PIECES)
    tl.store(offsets + stream + 1, tl.minimum(base + number, capacity))
    if stream == 0:
        tl.store(offsets, 0)


def select_tile(tokens: int) -> dict[str, int]:
    """Norms that a program holds at a time, when it chooses a stream's tokens."""
    block = min(8192, power_of_two(tokens))
    return {"BLOCK": block, "num_warps": max(1, min(8, block // 512))}


def select(
    norms: Tensor, count: Tensor, threshold: Tensor, flush: Tensor | None, capacity: int
) -> tuple[Tensor, Tensor]:
    """The tokens that a gate lets through.

    Args:
        norms: (B, N), float32. The rest as `ops.gate` takes it.

    Returns:
        Places (capacity,) and where each stream's begin (B + 1,).
    """
    streams, tokens = norms.shape
    index = torch.empty(capacity, dtype=torch.int64, device=norms.device)
    offsets = torch.empty(streams + 1, dtype=torch.int64, device=norms.device)
    tile = select_tile(tokens)
    tile["PIECES"] = triton.cdiv(tokens, tile["BLOCK"])
    if streams == 1:
        _select_one[(1,)](norms, count, threshold, flush, index, offsets, tokens, capacity, **tile)
        return index, offsets
    cutoffs = torch.empty(streams, 4, dtype=torch.int32, device=norms.device)
    _find_cutoffs[(streams,)](norms, count, threshold, flush, cutoffs, tokens, **tile)
    _write_all[(streams,)](
        norms, threshold, flush, cutoffs, index, offsets, streams, tokens, capacity, STREAMS=power_of_two(streams),
        **tile,
    )  # fmt: skip
    return index, offsets
