"""Gates and buffers on a GPU. A program takes some rows of channels, whose number is known to the compiler: it leaves
out what lies beyond them in a row's power of two, which is a quarter of the work on 768 channels."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .. import gating as operators
from .launch import TYPES, fits, power_of_two
from .selecting import select

ADDED_VALUES = 4096
"""Values that a program adds."""
NORMS_REGISTERS = 64
"""Of a thread that normalises and compares. A processor then holds 32 warps, and an H100 all 4,096 tokens of a frame at
once; with more registers, a tenth of the programs would run behind the others."""


@triton.jit
def _affine(weight, bias, column, channels: tl.constexpr, ROWS: tl.constexpr):
    """Weight and bias of a layer norm, in pieces as the tokens."""
    scale, shift = 1.0, 0.0
    if weight is not None:
        scale = _in_pieces(tl.load(weight + column, mask=column < channels).to(tl.float32), ROWS)
    if bias is not None:
        shift = _in_pieces(tl.load(bias + column, mask=column < channels).to(tl.float32), ROWS)
    return scale, shift


@triton.jit
def _rows_and_columns(ROWS: tl.constexpr, PIECES: tl.constexpr, WIDTH: tl.constexpr, VECTOR: tl.constexpr):
    """Of what a program reads and writes: rows (P R,), columns (P R, W). All rows' first pieces come first.

    With a warp as wide as a piece, and as many warps as rows, each warp holds one row: Triton hands the lines of such a
    matrix to the warps in turn. Its threads take VECTOR values at a time of whatever is read, of which types differ.
    """
    line = tl.arange(0, PIECES * ROWS)
    column = (line // ROWS * WIDTH)[:, None] + tl.arange(0, WIDTH)[None, :]
    return line % ROWS, tl.max_contiguous(column, [1, VECTOR])


@triton.jit
def _in_pieces(values, ROWS: tl.constexpr):
    """(P R, W) -> (P, R, W)."""
    return tl.reshape(values, (values.shape[0] // ROWS, ROWS, values.shape[1]))


@triton.jit
def _row_sums(values):
    """(P, R, W) -> (R,)."""
    return tl.sum(tl.sum(values, axis=0), axis=1)


@triton.jit
def _normalised(x, inside, scale, shift, eps, channels: tl.constexpr, NORMALISED: tl.constexpr):
    """Layer norm of rows in pieces (P, R, W), in float32, rounded to the type that they came in; zero outside.

    Everything is loaded before: what comes after a sum over a row waits for all threads that hold a part of it.
    """
    values = tl.where(inside, x.to(tl.float32), 0.0)
    if NORMALISED:
        mean = _row_sums(values) / channels
        centred = tl.where(inside, values - mean[None, :, None], 0.0)
        variance = _row_sums(centred * centred) / channels
        values = centred * tl.rsqrt(variance + eps)[None, :, None] * scale + shift
        values = tl.where(inside, values.to(x.dtype).to(tl.float32), 0.0)
    return values


@triton.jit
def _error_norms(
    x, reference, added, weight, bias, eps, flush, norms, rows, tokens, channels: tl.constexpr,
    NORMALISED: tl.constexpr, ROWS: tl.constexpr, PIECES: tl.constexpr, WIDTH: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """Error norms of a program's rows, to which something may be added in place first."""
    first = tl.program_id(0) * ROWS
    line, column = _rows_and_columns(ROWS, PIECES, WIDTH, VECTOR)
    inside = (first + line < rows)[:, None] & (column < channels)
    place = (first + line).to(tl.int64)[:, None] * channels + column
    token = tl.load(x + place, mask=inside)
    before = tl.load(reference + place, mask=inside)
    if added is not None:
        total = token.to(tl.float32) + tl.load(added + place, mask=inside).to(tl.float32)
        token = total.to(x.dtype.element_ty)
        tl.store(x + place, token, mask=inside)
    # After the sum is stored, so that weights do not occupy registers meanwhile.
    scale, shift = _affine(weight, bias, column, channels, ROWS)
    pieces = _in_pieces(inside, ROWS)
    values = _normalised(_in_pieces(token, ROWS), pieces, scale, shift, eps, channels, NORMALISED)
    error = tl.where(pieces, values - _in_pieces(before, ROWS).to(tl.float32), 0.0)
    norm = tl.sqrt(_row_sums(error * error))
    row = first + tl.arange(0, ROWS)
    if flush is not None:
        norm = tl.where(tl.load(flush + row // tokens, mask=row < rows, other=0) != 0, float("inf"), norm)
    tl.store(norms + row, norm, mask=row < rows)


@triton.jit
def _send(
    x, reference, index, used, weight, bias, eps, out, rows, channels: tl.constexpr,
    NORMALISED: tl.constexpr, ROWS: tl.constexpr, PIECES: tl.constexpr, WIDTH: tl.constexpr, VECTOR: tl.constexpr,
):  # fmt: skip
    """Normalised rows, packed; and into the reference, where there is one."""
    if used is not None:
        rows = tl.minimum(rows, tl.load(used).to(tl.int32))
    first = tl.program_id(0) * ROWS
    if first >= rows:
        return
    line, column = _rows_and_columns(ROWS, PIECES, WIDTH, VECTOR)
    row = first + line
    inside = (row < rows)[:, None] & (column < channels)
    place = row.to(tl.int64)
    if index is not None:
        place = tl.load(index + row, mask=row < rows, other=0)
    place = place[:, None] * channels + column
    token = tl.load(x + place, mask=inside)
    scale, shift = _affine(weight, bias, column, channels, ROWS)
    pieces = _in_pieces(inside, ROWS)
    values = _normalised(_in_pieces(token, ROWS), pieces, scale, shift, eps, channels, NORMALISED)
    values = tl.reshape(values, (PIECES * ROWS, WIDTH))
    packed = row.to(tl.int64)[:, None] * channels + column
    tl.store(out + packed, values.to(out.dtype.element_ty), mask=inside)
    if reference is not None:
        tl.store(reference + place, values.to(reference.dtype.element_ty), mask=inside)


@triton.jit
def _store(buffer, index, rows, used, old, most, width, first_column, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Rows to their places, of which the values before go into `old`."""
    if used is not None:
        most = tl.minimum(most, tl.load(used).to(tl.int32))
    first = tl.program_id(0) * ROWS
    if first >= most:
        return
    row = first + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = (row < most)[:, None] & (column < width)
    values = tl.load(rows + row.to(tl.int64)[:, None] * width + column, mask=inside)
    place = row.to(tl.int64)
    if index is not None:
        place = tl.load(index + row, mask=row < most, other=0)
    place = place[:, None] * width + column
    if old is not None:
        kept = inside & (column >= first_column)
        before = tl.load(buffer + place, mask=kept)
        row_of_old = row.to(tl.int64)[:, None] * (width - first_column)
        tl.store(old + row_of_old + column - first_column, before, mask=kept)
        # Where types differ, the thread that reads a value need not be the one that writes it.
        tl.debug_barrier()
    tl.store(buffer + place, values.to(buffer.dtype.element_ty), mask=inside)


@triton.jit
def _add(x, buffer, count, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    total = tl.load(x + place, mask=inside).to(tl.float32) + tl.load(buffer + place, mask=inside).to(tl.float32)
    tl.store(x + place, total.to(x.dtype.element_ty), mask=inside)


def norms_tile(x: Tensor) -> dict[str, int]:
    """Rows that a program compares, a warp for each: of several warps, each waits for the others whenever a row is
    summed."""
    tile = _tile(x, 4, 1)
    return {**tile, "maxnreg": NORMS_REGISTERS} if power_of_two(x.shape[-1]) <= 1024 else tile


def send_tile(x: Tensor) -> dict[str, int]:
    """Rows that a program normalises and sends on. There are few, so that each one has more threads."""
    return _tile(x, 1, 2)


def _tile(x: Tensor, rows: int, warps: int) -> dict[str, int]:
    """Rows in pieces (P, R, W). A piece is what the warps of a row read at a time, 16 bytes a thread.

    Args:
        warps: of a row of up to 1,024 columns. Where rows are shorter, a program takes more of them.
    """
    columns, vector = power_of_two(x.shape[-1]), 16 // x.element_size()
    warps = min(16, max(warps, columns // 1024))
    width = min(columns, 32 * warps * vector)
    rows = max(1, rows // max(1, columns // 1024))
    tile = {"PIECES": columns // width, "WIDTH": width, "VECTOR": vector, "num_warps": min(16, rows * warps)}
    return {"ROWS": rows * max(1, 1024 // columns), **tile}


def store_tile(width: int) -> dict[str, int]:
    """Rows, and columns of these, that a program writes to a buffer."""
    columns = min(1024, power_of_two(width))
    return {"ROWS": max(1, min(16, 2048 // columns)), "COLUMNS": columns, "num_warps": 4}


def normalise(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float | None, dtype: torch.dtype | None = None
) -> Tensor:
    if eps is None or not fits(x, weight, bias) or (dtype or x.dtype) not in TYPES:
        return NotImplemented
    out = torch.empty_like(x, dtype=dtype)
    _run_send(x, None, None, None, weight, bias, eps, out)
    return out


def error_norms(x: Tensor, reference: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float | None) -> Tensor:
    if not (fits(x, reference, weight, bias) and x.shape == reference.shape):
        return NotImplemented
    norms = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    _run_error_norms(x, reference, None, weight, bias, eps, None, norms)
    return norms


def send(
    x: Tensor,
    reference: Tensor,
    index: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float | None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    if not (fits(x, reference, weight, bias) and x.shape == reference.shape and (dtype or x.dtype) in TYPES):
        return NotImplemented
    rows = x.new_empty(x.numel() // x.shape[-1] if index is None else len(index), x.shape[-1], dtype=dtype)
    _run_send(x, reference, index, None, weight, bias, eps, rows)
    return rows


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
    shapes_fit = x.shape == reference.shape and (added is None or added.shape == x.shape)
    if not (shapes_fit and fits(x, reference, added, weight, bias) and (dtype or x.dtype) in TYPES):
        return NotImplemented
    norms = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    _run_error_norms(x, reference, added, weight, bias, eps, flush, norms)
    index, offsets = select(norms, count, threshold, flush, capacity)
    rows = x.new_empty(capacity, x.shape[-1], dtype=dtype)
    _run_send(x, reference, index, offsets[-1:], weight, bias, eps, rows)
    return norms, index, offsets, rows


def store(buffer: Tensor, index: Tensor | None, rows: Tensor, used: Tensor | None) -> None:
    if not (fits(buffer, rows) and rows.shape[-1] == buffer.shape[-1]):
        return NotImplemented
    _run_store(buffer, index, rows, used, None, 0)


def replace(buffer: Tensor, index: Tensor, rows: Tensor, used: Tensor | None, first: int) -> Tensor:
    if not (fits(buffer, rows) and rows.shape[-1] == buffer.shape[-1] and 0 <= first <= buffer.shape[-1]):
        return NotImplemented
    old = buffer.new_empty(len(index), buffer.shape[-1] - first)
    _run_store(buffer, index, rows, used, old, first)
    return old


def add(x: Tensor, buffer: Tensor) -> None:
    if not (fits(x, buffer) and x.shape == buffer.shape):
        return NotImplemented
    if x.numel():
        _add[(triton.cdiv(x.numel(), ADDED_VALUES),)](x, buffer, x.numel(), BLOCK=ADDED_VALUES)


def _run_error_norms(
    x: Tensor, reference: Tensor, added: Tensor | None, weight: Tensor | None, bias: Tensor | None, eps: float | None,
    flush: Tensor | None, norms: Tensor,
) -> None:  # fmt: skip
    if not x.numel():
        norms.zero_()
        return
    tokens, channels = x.shape[-2:]
    tile = norms_tile(x)
    _error_norms[(triton.cdiv(norms.numel(), tile["ROWS"]),)](
        x, reference, added, weight, bias, eps or 0.0, flush, norms, norms.numel(), tokens, channels,
        NORMALISED=eps is not None, **tile,
    )  # fmt: skip


def _run_send(
    x: Tensor, reference: Tensor | None, index: Tensor | None, used: Tensor | None, weight: Tensor | None,
    bias: Tensor | None, eps: float | None, out: Tensor,
) -> None:  # fmt: skip
    if not out.numel():
        return
    channels = x.shape[-1]
    rows, tile = out.numel() // channels, send_tile(x)
    _send[(triton.cdiv(rows, tile["ROWS"]),)](
        x, reference, index, used, weight, bias, eps or 0.0, out, rows, channels, NORMALISED=eps is not None, **tile
    )


def _run_store(
    buffer: Tensor, index: Tensor | None, rows: Tensor, used: Tensor | None, old: Tensor | None, first: int
) -> None:
    if not rows.numel():
        return
    width = buffer.shape[-1]
    most = rows.numel() // width
    tile = store_tile(width)
    grid = (triton.cdiv(most, tile["ROWS"]), triton.cdiv(width, tile["COLUMNS"]))
    _store[grid](buffer, index, rows, used, old, most, width, first, **tile)


IMPLEMENTATIONS = {
    operators.add: add,
    operators.normalise: normalise,
    operators.error_norms: error_norms,
    operators.send: send,
    operators.gate: gate,
    operators.store: store,
    operators.replace: replace,
}
