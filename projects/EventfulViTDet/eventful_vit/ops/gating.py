"""Operators of gates and buffers. `index` holds tokens of all streams: places in B * N, ascending."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .operator import operator


def normalise(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float | None) -> Tensor:
    """Layer norm over the channels of (..., D); without `eps`, x as it is."""
    return x if eps is None else F.layer_norm(x, x.shape[-1:], weight, bias, eps)


def _norms_shapes(x: Tensor, *args) -> Tensor:
    return x.new_empty(x.shape[:-1], dtype=torch.float32)


@operator(
    "error_norms(Tensor x, Tensor reference, Tensor? weight, Tensor? bias, float? eps) -> Tensor", shapes=_norms_shapes
)
def error_norms(
    x: Tensor, reference: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float | None
) -> Tensor:
    """|norm(x) - reference| of every token: (B, N, D) -> (B, N), float32."""
    return torch.linalg.vector_norm(normalise(x, weight, bias, eps) - reference, dim=-1, dtype=torch.float32)


def _largest_shapes(norms: Tensor, count: int) -> Tensor:
    return norms.new_empty(norms.shape[0] * count, dtype=torch.int64)


@operator("largest(Tensor norms, int count) -> Tensor", shapes=_largest_shapes)
def largest(norms: Tensor, count: int) -> Tensor:
    """The `count` tokens with the largest norms (B, N) of each stream: (B * count,), ascending.

    Of equal norms the earlier token goes first; NaN counts as largest.
    """
    streams, tokens = norms.shape
    order = norms.nan_to_num(nan=torch.inf, posinf=torch.inf).sort(dim=-1, descending=True, stable=True).indices
    index = order[:, :count].sort(dim=-1).values
    return (index + tokens * torch.arange(streams, device=norms.device)[:, None]).flatten()


def _send_shapes(x: Tensor, reference: Tensor, index: Tensor, *args) -> Tensor:
    return x.new_empty(len(index), x.shape[-1])


@operator(
    "send(Tensor x, Tensor(a!) reference, Tensor index, Tensor? weight, Tensor? bias, float? eps) -> Tensor",
    shapes=_send_shapes,
)
def send(
    x: Tensor, reference: Tensor, index: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float | None
) -> Tensor:
    """norm(x) of the selected tokens, (R, D), which takes its place in the reference (B, N, D) too."""
    rows = normalise(x.flatten(0, 1).index_select(0, index), weight, bias, eps)
    _put(reference, index, rows)
    return rows


def _no_result(*args) -> None:
    return None


@operator("store(Tensor(a!) buffer, Tensor index, Tensor rows) -> ()", shapes=_no_result)
def store(buffer: Tensor, index: Tensor, rows: Tensor) -> None:
    """Write rows (R, E) to their places in a buffer (B, N, E)."""
    _put(buffer, index, rows)


def _replace_shapes(buffer: Tensor, index: Tensor, rows: Tensor, first: int) -> Tensor:
    return buffer.new_empty(len(index), buffer.shape[-1] - first)


@operator("replace(Tensor(a!) buffer, Tensor index, Tensor rows, int first) -> Tensor", shapes=_replace_shapes)
def replace(buffer: Tensor, index: Tensor, rows: Tensor, first: int) -> Tensor:
    """Write rows (R, E) to their places in a buffer (B, N, E); returns what they replace from column `first` on."""
    old = buffer.flatten(0, 1)[:, first:].index_select(0, index)
    _put(buffer, index, rows)
    return old


def _sum_shapes(x: Tensor, *args) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@operator("store_and_add(Tensor x, Tensor(a!) buffer, Tensor index, Tensor rows) -> Tensor", shapes=_sum_shapes)
def store_and_add(x: Tensor, buffer: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """x + buffer, (B, N, D), after the rows (R, D) took their places in the buffer."""
    _put(buffer, index, rows)
    return x + buffer.to(x.dtype)


def _put(target: Tensor, index: Tensor, rows: Tensor) -> None:
    target.view(-1, target.shape[-1]).index_copy_(0, index, rows.to(target.dtype))
