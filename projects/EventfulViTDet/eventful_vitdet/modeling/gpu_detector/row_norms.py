"""A layer norm over the channels of a map on a GPU, with what comes before and after it: a bias, an activation, and the
order of the positions. One pass over memory instead of up to four."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from eventful_vit.ops.gpu.launch import power_of_two
from torch import Tensor

VALUES = 1024
"""Values that a program takes, if a row has no more."""


@triton.jit
def _norm(
    rows, bias, scale, shift, out, number, channels, height, width, eps, ACTIVATION: tl.constexpr,
    DOUBLINGS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Some rows (positions, channels)."""
    row, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, COLUMNS)[None, :]
    known = column < channels
    inside = (row < number)[:, None] & known
    value = tl.load(rows + row.to(tl.int64)[:, None] * channels + column, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(scale + column, mask=known, other=0.0).to(tl.float32)
    shift = tl.load(shift + column, mask=known, other=0.0).to(tl.float32)
    if bias is not None:
        value += tl.load(bias + column, mask=known, other=0.0).to(tl.float32)
    mean = tl.sum(value, axis=1) / channels
    value = tl.where(known, value - mean[:, None], 0.0)
    variance = tl.sum(value * value, axis=1) / channels
    value = value * tl.rsqrt(variance + eps)[:, None] * scale + shift
    if ACTIVATION == "relu":
        value = tl.where(value < 0.0, 0.0, value)  # a NaN stays one
    elif ACTIVATION == "gelu":
        value = 0.5 * value * (1.0 + tl.erf(value * 0.7071067811865476))
    place = row
    if DOUBLINGS > 0:
        # A row's number ends with which quarter of its cell it is, then which quarter of that one.
        cell = row // (4**DOUBLINGS)
        y, x = (cell // width) % height, cell % width
        for n in tl.static_range(DOUBLINGS):
            quarter = (row // (4 ** (DOUBLINGS - 1 - n))) % 4
            y, x = y * 2 + quarter // 2, x * 2 + quarter % 2
        place = (cell // (width * height) * height * (2**DOUBLINGS) + y) * width * (2**DOUBLINGS) + x
    tl.store(out + place.to(tl.int64)[:, None] * channels + column, value.to(out.dtype.element_ty), mask=inside)


def norm_rows(
    rows: Tensor, bias: Tensor | None, scale: Tensor, shift: Tensor, eps: float, activation: str = "",
    doublings: int = 0,
) -> Tensor:  # fmt: skip
    """Layer norm of each row.

    Args:
        rows: (B, h, w, ..., C).
        bias: (C,), added to the rows before.
        scale, shift: weight and bias of the norm.
        activation: applied to the result, "relu", "gelu" or none.
        doublings: with n, rows are (B, h, w, 4, ..., 4, C), n fours: quarters of a cell, quarters of these, and so on.

    Returns:
        As the rows; with n doublings (B, h * 2 ** n, w * 2 ** n, C).
    """
    rows = rows.contiguous()
    images, height, width = rows.shape[:3]
    channels, columns = rows.shape[-1], power_of_two(rows.shape[-1])
    shape = (images, height << doublings, width << doublings, channels) if doublings else rows.shape
    out = rows.new_empty(shape)
    number = rows.numel() // channels
    if number:
        per_program = max(1, VALUES // columns)
        _norm[(triton.cdiv(number, per_program),)](
            rows, bias, scale, shift, out, number, channels, height, width, eps, ACTIVATION=activation,
            DOUBLINGS=doublings, ROWS=per_program, COLUMNS=columns, num_warps=max(1, min(8, columns // VALUES)),
        )  # fmt: skip
    return out


def as_rows(level_map: Tensor) -> Tensor:
    """(B, C, H, W) to (B, H, W, C)."""
    return level_map.permute(0, 2, 3, 1).contiguous(memory_format=torch.contiguous_format)
