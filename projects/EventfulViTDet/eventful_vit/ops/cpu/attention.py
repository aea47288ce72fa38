"""Attention on a CPU. Weights of a softmax never leave the first cache level (attention_tile.h)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...attention.layout import AttentionLayout, attention_layout
from ...attention.position import expand_table
from .. import attention as operators
from .. import tape
from ..derived import derive
from .library import (
    DOUBLE,
    FLOAT,
    INT,
    LONG,
    POINTER,
    STATE_TYPES,
    address,
    available,
    call,
    contiguous,
    empty,
    function,
    is_state,
    readable,
    structure,
)

Attention = structure(
    "Attention", q=POINTER, k=POINTER, v=POINTER, q_token=LONG, q_stream=LONG, kv_token=LONG, kv_stream=LONG,
    padding=POINTER, row_table=POINTER, column_table=POINTER, streams=LONG, heads=INT, channels=INT, rows=INT,
    columns=INT, key_rows=INT, key_columns=INT, scale=FLOAT, is_bf16=INT,
)  # fmt: skip
Windows = structure("Windows", members=POINTER, of_token=POINTER, count=LONG, tokens=LONG)
Output = structure("Output", data=POINTER, token=LONG, stream=LONG, is_bf16=INT)
Attend = structure("Attend", attention=Attention, windows=Windows, out=Output)
AttendTouched = structure("AttendTouched", all=Attend, index=POINTER, most=LONG, used=POINTER, touched=POINTER)
Sums = structure("Sums", sums=POINTER, normalisers=POINTER, references=POINTER, drift=POINTER)
Limits = structure("Limits", score=FLOAT, drift=FLOAT, accumulation=FLOAT, dense=DOUBLE)
Update = structure(
    "Update", attention=Attention, sums=Sums, limits=Limits, everything=INT, index=POINTER, offsets=POINTER,
    keys=POINTER, key_offsets=POINTER, old=POINTER, executed=POINTER,
)  # fmt: skip
Divide = structure(
    "Divide", sums=POINTER, normalisers=POINTER, streams=LONG, tokens=LONG, heads=INT, channels=INT, out=Output
)


@operators.attend.implement("CPU")
def attend(
    qkv: Tensor, padding: Tensor | None, tables: Sequence[Tensor], heads: int, scale: float, layout: Sequence[int],
    dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    layout, qkv = attention_layout(*layout), contiguous(qkv)
    if not (dtype in STATE_TYPES and _can_attend(qkv, padding, heads, layout)):
        return NotImplemented
    out = empty((*qkv.shape[:2], qkv.shape[2] // 3), dtype)
    arguments, tensors = _attend(qkv, padding, out, tables, heads, scale, layout)
    call("attend", arguments, *tensors)
    return out


@operators.attend_windows.implement("CPU")
def attend_windows(
    qkv: Tensor, index: Tensor, used: Tensor | None, out: Tensor, padding: Tensor | None, tables: Sequence[Tensor],
    heads: int, scale: float, layout: Sequence[int],
) -> Tensor:  # fmt: skip
    layout = attention_layout(*layout)
    if not (is_state(qkv, out) and layout.pool == 1 and _can_attend(qkv, padding, heads, layout)):
        return NotImplemented
    touched = empty((len(qkv),), torch.int64)
    attention, tensors = _attend(qkv, padding, out, tables, heads, scale, layout)
    arguments = AttendTouched(attention, index.data_ptr(), len(index), address(used), touched.data_ptr())
    call("attend_touched", arguments, *tensors, index, used, touched)
    return touched


@operators.update_sums.implement("CPU")
def update_sums(
    q: Tensor, kv: Tensor, change: Sequence[Tensor], state: Sequence[Tensor], tables: Sequence[Tensor], heads: int,
    scale: float, layout: Sequence[int],
) -> Tensor:  # fmt: skip
    fits = readable(*state) and q.dtype in STATE_TYPES and kv.dtype == q.dtype and q.stride(-1) == kv.stride(-1) == 1
    if not (fits and (not change or (change[4].dtype == q.dtype and change[4].is_contiguous())) and available()):
        return NotImplemented
    executed = empty((len(q), 2), torch.int64)
    attention, tensors = _attention(q, *kv.chunk(2, -1), None, tables, heads, scale, attention_layout(*layout))
    limits = Limits(operators.SCORE_LIMIT, operators.DRIFT_LIMIT, operators.ACCUMULATION, operators.DENSE_ABOVE)
    places = map(address, change) if change else [None] * 5
    arguments = Update(attention, Sums(*map(address, state)), limits, not change, *places, executed.data_ptr())
    call("update_sums", arguments, *tensors, *state, *change, executed)
    return executed


@operators.divide.implement("CPU")
def divide(sums: Tensor, normalisers: Tensor, dtype: torch.dtype) -> Tensor:
    if not (readable(sums, normalisers) and dtype in STATE_TYPES and available()):
        return NotImplemented
    streams, heads, tokens, channels = sums.shape
    out = empty((streams, tokens, heads * channels), dtype)
    arguments = Divide(sums.data_ptr(), normalisers.data_ptr(), streams, tokens, heads, channels, _output(out))
    call("divide", arguments, sums, normalisers, out)
    return out


def _can_attend(qkv: Tensor, padding: Tensor | None, heads: int, layout: AttentionLayout) -> bool:
    return (
        qkv.dim() == 3
        and qkv.dtype in STATE_TYPES
        and qkv.shape[1] == layout.tokens
        and qkv.shape[2] % (3 * heads) == 0
        and (padding is None or padding.numel() == qkv.shape[2])
        and available()
    )


def _attend(
    qkv: Tensor, padding: Tensor | None, out: Tensor, tables: Sequence[Tensor], heads: int, scale: float,
    layout: AttentionLayout,
) -> tuple[Attend, list]:  # fmt: skip
    q, k, v = qkv.chunk(3, dim=-1)
    if layout.pool > 1:
        tape.refuse("keys were pooled")
        k, v = layout.pool_keys(qkv[..., q.shape[-1] :]).contiguous().chunk(2, dim=-1)
    attention, tensors = _attention(q, k, v, padding, tables, heads, scale, layout)
    windows = Windows()
    if layout.window:
        members, of_token = layout.window_members, layout.window_of_token
        windows = Windows(members.data_ptr(), of_token.data_ptr(), len(members), layout.tokens)
        tensors += [members, of_token]
    return Attend(attention, windows, _output(out)), [*tensors, out]


def _attention(
    q: Tensor, k: Tensor, v: Tensor, padding: Tensor | None, tables: Sequence[Tensor], heads: int, scale: float,
    layout: AttentionLayout,
) -> tuple[Attention, list]:  # fmt: skip
    """The C structure, and the tensors that it points to."""
    padding = None if padding is None else padding.to(q.dtype).contiguous()
    packed = [_packed_table(table, size, layout.pool) for table, size in zip(tables, layout.query_grid)]
    attention = Attention(
        q.data_ptr(), k.data_ptr(), v.data_ptr(), q.stride(1), q.stride(0), k.stride(1), k.stride(0), address(padding),
        *(map(address, packed) if packed else (None, None)), len(q), heads, q.shape[-1] // heads, *layout.query_grid,
        *layout.key_grid, scale, q.dtype is torch.bfloat16,
    )  # fmt: skip
    return attention, [q, k, v, padding, *packed]


def _packed_table(table: Tensor, size: int, pool: int) -> Tensor:
    """Relative positions (a, a', d) as the kernels read them: (a, d, a'), a' filled up to whole vectors, in float32."""

    def make() -> Tensor:
        expanded = expand_table(table.detach(), size, pool).float()
        filling = -expanded.shape[1] % function("vector_length", INT)()
        return F.pad(expanded.transpose(1, 2), (0, filling)).contiguous()

    return derive(table, ("packed position table", size, pool), make)


def _output(out: Tensor) -> Output:
    return Output(out.data_ptr(), out.stride(1), out.stride(0), out.dtype is torch.bfloat16)
