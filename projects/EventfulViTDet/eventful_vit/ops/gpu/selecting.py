"""Choosing a gate's tokens on a GPU: exactly the largest norms, of equal ones the first, with all numbers in memory."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import power_of_two

CHUNK = 4096
"""Norms that a program holds at a time."""


@triton.jit
def _keys(norms, place, inside, threshold, flushes):
    """Norms as whole numbers of the same order, and which of them may be chosen."""
    values = tl.load(norms + place, mask=inside, other=0.0)
    values = tl.where(values == values, values, float("inf"))  # NaN counts as largest
    allowed = inside & ((values > threshold) | flushes)
    return values.to(tl.int32, bitcast=True), allowed


@triton.jit
def _cutoff(norms, first, tokens, count, threshold, flushes, BLOCK: tl.constexpr):
    """What is chosen from a stream: all keys above a cutoff, and so many of those equal to it.

    Looks for the key of rank `count` byte by byte, from the highest: a histogram of the next byte of all keys that
    begin like it tells which byte follows.

    Returns:
        The cutoff, how many equal keys are taken, and how many keys are taken in all.
    """
    eligible = tl.zeros((), tl.int32)
    for start in range(0, tokens, BLOCK):
        place = start + tl.arange(0, BLOCK)
        _, allowed = _keys(norms + first, place, place < tokens, threshold, flushes)
        eligible += tl.sum(allowed.to(tl.int32), axis=0)
    chosen = tl.where(flushes, tokens, tl.minimum(count, eligible))
    cutoff = tl.full((), -1, tl.int32)
    ties = tl.zeros((), tl.int32)
    if chosen < eligible:
        cutoff = tl.zeros((), tl.int32)
        ties = chosen
        bins = tl.arange(0, 256)
        for shift in tl.static_range(24, -8, -8):
            histogram = tl.zeros((256,), tl.int32)
            for start in range(0, tokens, BLOCK):
                place = start + tl.arange(0, BLOCK)
                key, like = _keys(norms + first, place, place < tokens, threshold, flushes)
                if shift < 24:
                    like &= (key >> (shift + 8)) == cutoff
                histogram += tl.histogram(tl.where(like, (key >> shift) & 255, 0), 256)
                # Those that do not begin like it were put into the first bin.
                histogram -= tl.where(bins == 0, BLOCK - tl.sum(like.to(tl.int32), axis=0), 0)
            as_large = tl.cumsum(histogram, axis=0, reverse=True)
            found = tl.max(tl.where(as_large >= ties, bins, 0), axis=0)
            ties -= tl.sum(tl.where(bins > found, histogram, 0), axis=0)
            cutoff = (cutoff << 8) | found
    return cutoff, ties, chosen


@triton.jit
def _write(norms, first, tokens, threshold, flushes, cutoff, ties, index, base, capacity, BLOCK: tl.constexpr):
    """The places of a stream's chosen tokens, ascending, from `base` on."""
    equal_before = tl.zeros((), tl.int32)
    base = tl.zeros((), tl.int32) + base
    for start in range(0, tokens, BLOCK):
        place = start + tl.arange(0, BLOCK)
        key, allowed = _keys(norms + first, place, place < tokens, threshold, flushes)
        equal = (allowed & (key == cutoff)).to(tl.int32)
        taken = (allowed & (key > cutoff)) | ((equal != 0) & (tl.cumsum(equal, axis=0) + equal_before <= ties))
        rank = base + tl.cumsum(taken.to(tl.int32), axis=0) - 1
        tl.store(index + rank, first + place, mask=taken & (rank < capacity))
        base += tl.sum(taken.to(tl.int32), axis=0)
        equal_before += tl.sum(equal, axis=0)


@triton.jit
def _select_one(norms, count, threshold, flush, index, offsets, tokens, capacity, BLOCK: tl.constexpr):
    """All of it for a single stream."""
    limit = tl.load(threshold)
    flushes = tl.full((), 0, tl.int1)
    if flush is not None:
        flushes = tl.load(flush) != 0
    cutoff, ties, chosen = _cutoff(norms, 0, tokens, tl.load(count).to(tl.int32), limit, flushes, BLOCK)
    _write(norms, 0, tokens, limit, flushes, cutoff, ties, index, 0, capacity, BLOCK)
    tl.store(offsets, 0)
    tl.store(offsets + 1, tl.minimum(chosen, capacity))


@triton.jit
def _find_cutoffs(norms, count, threshold, flush, cutoffs, tokens, BLOCK: tl.constexpr):
    """What is chosen from each of several streams: (B, 3)."""
    stream = tl.program_id(0)
    flushes = tl.full((), 0, tl.int1)
    if flush is not None:
        flushes = tl.load(flush + stream) != 0
    cutoff, ties, chosen = _cutoff(
        norms, stream * tokens, tokens, tl.load(count).to(tl.int32), tl.load(threshold), flushes, BLOCK
    )
    tl.store(cutoffs + 3 * stream, cutoff)
    tl.store(cutoffs + 3 * stream + 1, ties)
    tl.store(cutoffs + 3 * stream + 2, chosen)


@triton.jit
def _write_all(
    norms, threshold, flush, cutoffs, index, offsets, streams, tokens, capacity, STREAMS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    stream = tl.program_id(0)
    others = tl.arange(0, STREAMS)
    chosen = tl.load(cutoffs + 3 * others + 2, mask=others < streams, other=0)
    base = tl.sum(tl.where(others < stream, chosen, 0), axis=0)
    flushes = tl.full((), 0, tl.int1)
    if flush is not None:
        flushes = tl.load(flush + stream) != 0
    cutoff, ties = tl.load(cutoffs + 3 * stream), tl.load(cutoffs + 3 * stream + 1)
    limit = tl.load(threshold)
    _write(norms, stream * tokens, tokens, limit, flushes, cutoff, ties, index, base, capacity, BLOCK)
    last = base + tl.load(cutoffs + 3 * stream + 2)
    tl.store(offsets + stream + 1, tl.minimum(last, capacity))
    if stream == 0:
        tl.store(offsets, 0)


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
    block = min(CHUNK, power_of_two(tokens))
    if streams == 1:
        _select_one[(1,)](norms, count, threshold, flush, index, offsets, tokens, capacity, BLOCK=block)
        return index, offsets
    cutoffs = torch.empty(streams, 3, dtype=torch.int32, device=norms.device)
    _find_cutoffs[(streams,)](norms, count, threshold, flush, cutoffs, tokens, BLOCK=block)
    _write_all[(streams,)](
        norms, threshold, flush, cutoffs, index, offsets, streams, tokens, capacity,
        STREAMS=power_of_two(streams), BLOCK=block,
    )  # fmt: skip
    return index, offsets
