"""Operators of gates and buffers.

`index` holds the selected tokens of all streams, places in B * N, ascending; None stands for all of them. `used`, a
number in memory, says how many of the places and rows count, where that is not known when memory is set aside for them;
None: all of them. A layer norm is given by its weight, bias and eps; without eps, tokens are taken as they are. `dtype`
is the type of the rows that come out; None: that of the tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .operator import operator

_NORM = "Tensor? weight, Tensor? bias, float? eps"


def _normalise_shapes(x: Tensor, weight, bias, eps, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)


@operator(f"normalise(Tensor x, {_NORM}, ScalarType? dtype=None) -> Tensor", shapes=_normalise_shapes)
def normalise(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float | None, dtype: torch.dtype | None = None
) -> Tensor:
    """Layer norm over the channels of (..., D)."""
    values = _normalised(x, weight, bias, eps)
    return values.to(dtype or x.dtype, copy=True, memory_format=torch.contiguous_format)


def _normalised(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float | None) -> Tensor:
    return x if eps is None else F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def _norms_shapes(x: Tensor, *args) -> Tensor:
    return x.new_empty(x.shape[:-1], dtype=torch.float32)


@operator(f"error_norms(Tensor x, Tensor reference, {_NORM}) -> Tensor", shapes=_norms_shapes)
def error_norms(x: Tensor, reference: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float | None) -> Tensor:
    """|norm(x) - reference| of every token: (B, N, D) -> (B, N), float32."""
    error = _normalised(x, weight, bias, eps) - reference
    return torch.linalg.vector_norm(error, dim=-1, dtype=torch.promote_types(error.dtype, torch.float32)).float()


def _rows(x: Tensor, index: Tensor | None) -> int:
    return len(x) * x.shape[1] if index is None else len(index)


def _send_shapes(
    x: Tensor, reference: Tensor, index: Tensor | None, weight, bias, eps, dtype: torch.dtype | None = None
) -> Tensor:
    return x.new_empty(_rows(x, index), x.shape[-1], dtype=dtype)


@operator(
    f"send(Tensor x, Tensor(a!) reference, Tensor? index, {_NORM}, ScalarType? dtype=None) -> Tensor",
    shapes=_send_shapes,
)
def send(
    x: Tensor,
    reference: Tensor,
    index: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float | None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """norm(x) of the selected tokens, (R, D), which takes its place in the reference (B, N, D) too."""
    rows = _normalised(_take(x, index), weight, bias, eps)
    _put(reference, index, rows)
    return rows if dtype is None else rows.to(dtype)


def _gate_shapes(
    x: Tensor, reference: Tensor, count, threshold, flush, capacity: int, weight, bias, eps, added=None,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    norms = _norms_shapes(x)
    index, offsets = norms.new_empty(capacity, dtype=torch.int64), norms.new_empty(len(x) + 1, dtype=torch.int64)
    return norms, index, offsets, x.new_empty(capacity, x.shape[-1], dtype=dtype)


@operator(
    "gate(Tensor(a!) x, Tensor(b!) reference, Tensor count, Tensor threshold, Tensor? flush, int capacity, "
    f"{_NORM}, Tensor? added=None, ScalarType? dtype=None) -> (Tensor, Tensor, Tensor, Tensor)",
    shapes=_gate_shapes,
)
def gate(
    x: Tensor,
    reference: Tensor,
    count: Tensor,
    threshold: Tensor,
    flush: Tensor | None,
    capacity: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float | None,
    added: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A gate whose policy is two numbers in memory: `error_norms`, a choice by them, and `send` of the chosen tokens.

    Args:
        count: () int64; at most so many tokens of each stream are chosen, those with the largest norms. Of equal norms
            the earlier token goes first; NaN counts as largest.
        threshold: () float32; their norms are above this.
        flush: (B,) uint8, streams of which all tokens are chosen; None: no such streams.
        capacity: room for the chosen tokens of all streams.
        added: (B, N, D), what is added to x in place before all else.

    Returns:
        Norms (B, N), infinite in streams that flush; places (capacity,), where each stream's begin (B + 1,), and rows
        (capacity, D). Only the first `offsets[B]` places and rows count.
    """
    if added is not None:
        add.reference(x, added)
    norms = error_norms.reference(x, reference, weight, bias, eps)
    if flush is not None:
        norms = norms.masked_fill(flush.bool()[:, None], torch.inf)
    chosen = largest_above(norms, int(count), float(threshold))
    if flush is not None:
        chosen |= flush.bool()[:, None]
    found = chosen.flatten().nonzero().squeeze(1)
    index, rows = found.new_zeros(capacity), x.new_zeros(capacity, x.shape[-1], dtype=dtype)
    index[: len(found)] = found
    rows[: len(found)] = send.reference(x, reference, found, weight, bias, eps, dtype)
    offsets = torch.zeros(len(x) + 1, dtype=torch.int64, device=x.device)
    offsets[1:] = chosen.sum(dim=1).cumsum(dim=0)
    return norms, index, offsets, rows


def largest_above(norms: Tensor, count: int, threshold: float) -> Tensor:
    """The `count` tokens with the largest norms (B, N) of each stream, of those above a threshold: (B, N) bool.

    Of equal norms the earlier token goes first; NaN counts as largest.
    """
    norms = norms.nan_to_num(nan=torch.inf, posinf=torch.inf)
    chosen = norms > threshold
    if count < norms.shape[1]:
        order = norms.sort(dim=1, descending=True, stable=True).indices
        chosen.scatter_(1, order[:, count:], False)
    return chosen


def _no_result(*args) -> None:
    return None


@operator("store(Tensor(a!) buffer, Tensor? index, Tensor rows, Tensor? used) -> ()", shapes=_no_result)
def store(buffer: Tensor, index: Tensor | None, rows: Tensor, used: Tensor | None) -> None:
    """Write rows (R, E) to their places in a buffer (B, N, E)."""
    _put(buffer, *_cut(used, index, rows))


def _replace_shapes(buffer: Tensor, index: Tensor, rows: Tensor, used: Tensor | None, first: int) -> Tensor:
    return buffer.new_empty(len(index), buffer.shape[-1] - first)


@operator(
    "replace(Tensor(a!) buffer, Tensor index, Tensor rows, Tensor? used, int first) -> Tensor", shapes=_replace_shapes
)
def replace(buffer: Tensor, index: Tensor, rows: Tensor, used: Tensor | None, first: int) -> Tensor:
    """Write rows (R, E) to their places in a buffer (B, N, E); returns what they replace from column `first` on."""
    old = buffer.flatten(0, 1)[:, first:].index_select(0, index)
    _put(buffer, *_cut(used, index, rows))
    return old


@operator("add(Tensor(a!) x, Tensor buffer) -> ()", shapes=_no_result)
def add(x: Tensor, buffer: Tensor) -> None:
    """Add all of a buffer (B, N, D) to x in place."""
    x += buffer.to(x.dtype)


def _take(x: Tensor, index: Tensor | None) -> Tensor:
    rows = x.flatten(0, 1)
    return rows.clone() if index is None else rows.index_select(0, index)


def _cut(used: Tensor | None, index: Tensor | None, rows: Tensor) -> tuple[Tensor | None, Tensor]:
    """The places and rows that count."""
    return (index, rows) if used is None else (index[: int(used)], rows[: int(used)])


def _put(target: Tensor, index: Tensor | None, rows: Tensor) -> None:
    flat = target.view(-1, target.shape[-1])
    if index is None:
        flat.copy_(rows)
    else:
        flat.index_copy_(0, index, rows.to(target.dtype))


def _finite_shapes(images: Tensor) -> Tensor:
    return images.new_empty(len(images), dtype=torch.bool)


@operator("finite(Tensor images) -> Tensor", shapes=_finite_shapes)
def finite(images: Tensor) -> Tensor:
    """Whether the values of each stream's frame (B, ...) are all finite: (B,) bool."""
    # A sum is finite where all its terms are, unless it overflows: one pass, and hardly any memory.
    sums = images.flatten(1).sum(dim=1, dtype=torch.promote_types(images.dtype, torch.float32)).isfinite()
    return sums if bool(sums.all()) else images.flatten(1).isfinite().all(dim=1)
