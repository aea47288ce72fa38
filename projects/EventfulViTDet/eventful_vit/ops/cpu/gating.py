"""Gates and buffers on a CPU: one pass over the tokens for layer norm, difference and error norm."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import gating as operators
from .library import (
    FLOAT,
    INT,
    LONG,
    POINTER,
    address,
    available,
    call,
    is_state,
    readable,
    structure,
)

Norm = structure("Norm", weight=POINTER, bias=POINTER, eps=FLOAT, present=INT)
Tokens = structure(
    "Tokens", x=POINTER, reference=POINTER, count=LONG, channels=INT, reference_is_bf16=INT, norm=Norm
)
ErrorNorms = structure("ErrorNorms", tokens=Tokens, norms=POINTER)
Largest = structure("Largest", norms=POINTER, streams=LONG, tokens=LONG, count=LONG, index=POINTER)
Send = structure("Send", tokens=Tokens, index=POINTER, selected=LONG, rows=POINTER)
Store = structure(
    "Store", buffer=POINTER, is_bf16=INT, width=INT, index=POINTER, rows=POINTER, selected=LONG, first=INT, old=POINTER
)
StoreAndAdd = structure("StoreAndAdd", store=Store, x=POINTER, out=POINTER, tokens=LONG)


@operators.error_norms.implement("CPU")
def error_norms(x: Tensor, reference: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float | None) -> Tensor:
    if not _can_compare(x, reference, weight, bias, eps):
        return NotImplemented
    norms = x.new_empty(x.shape[:-1])
    arguments = ErrorNorms(_tokens(x, reference, weight, bias, eps), norms.data_ptr())
    call("error_norms", arguments, x, reference, weight, bias, norms)
    return norms


@operators.largest.implement("CPU")
def largest(norms: Tensor, count: int) -> Tensor:
    if not (readable(norms) and norms.dim() == 2 and 0 <= count <= norms.shape[1] and available()):
        return NotImplemented
    index = torch.empty(len(norms) * count, dtype=torch.int64)
    call("largest", Largest(norms.data_ptr(), *norms.shape, count, index.data_ptr()), norms, index)
    return index


@operators.send.implement("CPU")
def send(
    x: Tensor, reference: Tensor, index: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float | None
) -> Tensor:
    if not _can_compare(x, reference, weight, bias, eps):
        return NotImplemented
    rows = x.new_empty(len(index), x.shape[-1])
    arguments = Send(_tokens(x, reference, weight, bias, eps), index.data_ptr(), len(index), rows.data_ptr())
    call("send", arguments, x, reference, index, weight, bias, rows)
    return rows


@operators.store.implement("CPU")
def store(buffer: Tensor, index: Tensor, rows: Tensor) -> None:
    if not _can_store(buffer, rows):
        return NotImplemented
    call("store", _store(buffer, index, rows, None), buffer, index, rows)


@operators.replace.implement("CPU")
def replace(buffer: Tensor, index: Tensor, rows: Tensor, first: int) -> Tensor:
    if not (_can_store(buffer, rows) and 0 <= first <= buffer.shape[-1]):
        return NotImplemented
    old = buffer.new_empty(len(index), buffer.shape[-1] - first)
    call("store", _store(buffer, index, rows, old, first), buffer, index, rows, old)
    return old


@operators.store_and_add.implement("CPU")
def store_and_add(x: Tensor, buffer: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    if not (readable(x) and x.shape == buffer.shape and _can_store(buffer, rows)):
        return NotImplemented
    out = torch.empty_like(x)
    tokens = x.numel() // max(x.shape[-1], 1)
    arguments = StoreAndAdd(_store(buffer, index, rows, None), x.data_ptr(), out.data_ptr(), tokens)
    call("store_and_add", arguments, x, buffer, index, rows, out)
    return out


def _can_compare(
    x: Tensor, reference: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float | None
) -> bool:
    if eps is not None and (weight is None or bias is None or not weight.shape == bias.shape == x.shape[-1:]):
        return False
    return readable(x, weight, bias) and is_state(reference) and x.shape == reference.shape and available()


def _tokens(x: Tensor, reference: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float | None) -> Tokens:
    norm = Norm() if eps is None else Norm(weight.data_ptr(), bias.data_ptr(), eps, 1)
    channels = x.shape[-1]
    return Tokens(
        x.data_ptr(), reference.data_ptr(), x.numel() // max(channels, 1), channels, reference.dtype is torch.bfloat16, norm
    )


def _can_store(buffer: Tensor, rows: Tensor) -> bool:
    return readable(rows) and is_state(buffer) and rows.shape[-1] == buffer.shape[-1] and available()


def _store(buffer: Tensor, index: Tensor, rows: Tensor, old: Tensor | None, first: int = 0) -> Store:
    return Store(
        buffer.data_ptr(), buffer.dtype is torch.bfloat16, buffer.shape[-1], index.data_ptr(), rows.data_ptr(), len(index),
        first, address(old),
    )  # fmt: skip
