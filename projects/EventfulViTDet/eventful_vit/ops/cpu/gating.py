"""Gates and buffers on a CPU: one pass over the tokens for layer norm, difference and error norm."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import gating as operators
from .. import tape
from ..attention import SHORT_TYPES
from .library import FLOAT, INT, LONG, POINTER, address, available, call, empty, is_state, readable, structure

Gate = structure(
    "Gate", x=POINTER, reference=POINTER, streams=LONG, tokens=LONG, channels=INT, is_bf16=INT, weight=POINTER,
    bias=POINTER, eps=FLOAT, normalised=INT, count=POINTER, threshold=POINTER, flush=POINTER, norms=POINTER,
    index=POINTER, offsets=POINTER, most=LONG, used=POINTER, rows=POINTER, added=POINTER,
)  # fmt: skip
Store = structure(
    "Store", buffer=POINTER, is_bf16=INT, width=INT, index=POINTER, rows=POINTER, most=LONG, used=POINTER, first=INT,
    old=POINTER,
)  # fmt: skip
Add = structure("Add", x=POINTER, buffer=POINTER, values=LONG, is_bf16=INT)
Finite = structure("Finite", x=POINTER, streams=LONG, values=LONG, result=POINTER)


@operators.normalise.implement("CPU")
def normalise(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float | None, dtype: torch.dtype | None = None
) -> Tensor:
    if eps is None or not _fits(x, weight, bias, eps):
        return NotImplemented
    rows, channels = empty(x.shape), x.shape[-1]
    arguments = Gate(
        x=x.data_ptr(), channels=channels, weight=weight.data_ptr(), bias=bias.data_ptr(), eps=eps, normalised=True,
        most=x.numel() // max(channels, 1), rows=rows.data_ptr(),
    )  # fmt: skip
    call("send", arguments, x, weight, bias, rows)
    return _in_type(rows, dtype)


@operators.error_norms.implement("CPU")
def error_norms(x: Tensor, reference: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float | None) -> Tensor:
    if not _can_compare(x, reference, weight, bias, eps):
        return NotImplemented
    norms = empty(x.shape[:-1])
    call("error_norms", _gate(x, reference, weight, bias, eps, norms=norms), x, reference, weight, bias, norms)
    return norms


@operators.send.implement("CPU")
def send(
    x: Tensor,
    reference: Tensor,
    index: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float | None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    if not _can_compare(x, reference, weight, bias, eps):
        return NotImplemented
    rows = empty((x.numel() // max(x.shape[-1], 1) if index is None else len(index), x.shape[-1]))
    arguments = _gate(x, reference, weight, bias, eps, index=index, most=len(rows), rows=rows)
    call("send", arguments, x, reference, index, weight, bias, rows)
    return _in_type(rows, dtype)


@operators.gate.implement("CPU")
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
    if not (_can_compare(x, reference, weight, bias, eps) and _can_add(x, added)):
        return NotImplemented
    if added is not None and added.dtype is not reference.dtype:
        return NotImplemented
    norms, offsets = empty(x.shape[:-1]), empty((len(x) + 1,), torch.int64)
    index, rows = empty((capacity,), torch.int64), empty((capacity, x.shape[-1]))
    arguments = Gate(
        x.data_ptr(), reference.data_ptr(), *x.shape, reference.dtype is torch.bfloat16, address(weight), address(bias),
        eps or 0.0, eps is not None, count.data_ptr(), threshold.data_ptr(), address(flush), norms.data_ptr(),
        index.data_ptr(), offsets.data_ptr(), capacity, None, rows.data_ptr(), address(added),
    )  # fmt: skip
    call("gate", arguments, x, reference, weight, bias, count, threshold, flush, norms, index, offsets, rows, added)
    return norms, index, offsets, _in_type(rows, dtype)


@operators.store.implement("CPU")
def store(buffer: Tensor, index: Tensor | None, rows: Tensor, used: Tensor | None) -> None:
    rows = _widened(rows)
    if not _can_store(buffer, rows):
        return NotImplemented
    call("store", _store(buffer, index, rows, used), buffer, index, rows, used)


@operators.replace.implement("CPU")
def replace(buffer: Tensor, index: Tensor, rows: Tensor, used: Tensor | None, first: int) -> Tensor:
    rows = _widened(rows)
    if not (_can_store(buffer, rows) and 0 <= first <= buffer.shape[-1]):
        return NotImplemented
    old = empty((len(index), buffer.shape[-1] - first), buffer.dtype)
    call("store", _store(buffer, index, rows, used, old, first), buffer, index, rows, used, old)
    return old


@operators.add.implement("CPU")
def add(x: Tensor, buffer: Tensor) -> None:
    if not (readable(x) and _can_add(x, buffer) and available()):
        return NotImplemented
    arguments = Add(x.data_ptr(), buffer.data_ptr(), x.numel(), buffer.dtype is torch.bfloat16)
    call("add", arguments, x, buffer)


@operators.finite.implement("CPU")
def finite(images: Tensor) -> Tensor:
    if not (readable(images) and len(images) and available()):
        return NotImplemented
    result = empty((len(images),), torch.bool)
    call("finite", Finite(images.data_ptr(), len(images), images[0].numel(), result.data_ptr()), images, result)
    return result


def _fits(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float | None) -> bool:
    """Whether the kernels can read tokens and norm."""
    if eps is not None and (weight is None or bias is None or not weight.shape == bias.shape == x.shape[-1:]):
        return False
    return readable(x, weight, bias) and available()


def _can_compare(x: Tensor, reference: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float | None) -> bool:
    return is_state(reference) and x.shape == reference.shape and _fits(x, weight, bias, eps)


def _gate(
    x: Tensor, reference: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float | None, *,
    norms: Tensor | None = None, index: Tensor | None = None, most: int = 0, rows: Tensor | None = None,
) -> Gate:  # fmt: skip
    return Gate(
        x.data_ptr(), reference.data_ptr(), *x.shape, reference.dtype is torch.bfloat16, address(weight), address(bias),
        eps or 0.0, eps is not None, None, None, None, address(norms), address(index), None, most, None, address(rows),
    )  # fmt: skip


def _can_add(x: Tensor, buffer: Tensor | None) -> bool:
    return buffer is None or (is_state(buffer) and x.shape == buffer.shape)


def _in_type(rows: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Rows in another type than the kernels read and write, which is float32."""
    if dtype in (None, rows.dtype):
        return rows
    tape.refuse("rows were converted")
    return rows.to(dtype)


def _widened(rows: Tensor) -> Tensor:
    """Rows of a short type in float32."""
    return _in_type(rows, torch.float32) if rows.dtype in SHORT_TYPES else rows


def _can_store(buffer: Tensor, rows: Tensor) -> bool:
    return readable(rows) and is_state(buffer) and rows.shape[-1] == buffer.shape[-1] and available()


def _store(
    buffer: Tensor, index: Tensor | None, rows: Tensor, used: Tensor | None, old: Tensor | None = None, first: int = 0
) -> Store:
    width = buffer.shape[-1]
    return Store(
        buffer.data_ptr(), buffer.dtype is torch.bfloat16, width, address(index), rows.data_ptr(),
        rows.numel() // max(width, 1), address(used), first, address(old),
    )  # fmt: skip
