"""Linear layers on a GPU: products in a short type with bias, GELU and a sum on the way out, of the rows that count."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ... import ops
from ..attention import SHORT_TYPES
from ..linear import rounded
from .launch import TYPES, product
from .tuning import linear_tile


@triton.jit
def _linear(
    x, weight, bias, added, used, out, rows, outputs, inputs, out_step,
    GELU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """One tile of the result, (ROWS, COLUMNS). Rows of `out` are `out_step` values apart."""
    if used is not None:
        rows = tl.minimum(rows, tl.load(used).to(tl.int32))
    # Neighbouring programs share rows or weights, so that these are in the second-level cache.
    tiles_down, tiles_across = tl.cdiv(rows, ROWS), tl.cdiv(outputs, COLUMNS)
    program = tl.program_id(0)
    if program >= tiles_down * tiles_across:
        return
    group = program // (GROUP * tiles_across)
    height = tl.minimum(tiles_down - group * GROUP, GROUP)
    within = program % (GROUP * tiles_across)
    row = (group * GROUP + within % height) * ROWS + tl.arange(0, ROWS)
    column = within // height * COLUMNS + tl.arange(0, COLUMNS)
    depth = tl.arange(0, DEPTH)
    x_place = x + row.to(tl.int64)[:, None] * inputs + depth[None, :]
    weight_place = weight + column.to(tl.int64)[None, :] * inputs + depth[:, None]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, inputs, DEPTH):
        rest = inputs - start
        a = tl.load(x_place, mask=(row < rows)[:, None] & (depth < rest)[None, :], other=0.0)
        b = tl.load(weight_place, mask=(column < outputs)[None, :] & (depth < rest)[:, None], other=0.0)
        total = product(a.to(b.dtype), b, total, "ieee")
        x_place += DEPTH
        weight_place += DEPTH
    if bias is not None:
        total += tl.load(bias + column, mask=column < outputs, other=0.0).to(tl.float32)[None, :]
    inside = (row < rows)[:, None] & (column < outputs)[None, :]
    row = row.to(tl.int64)[:, None]
    # Each step rounds to the type of the layer, as PyTorch's own layers do.
    total = total.to(weight.dtype.element_ty).to(tl.float32)
    if GELU:
        total = 0.5 * total * (1.0 + tl.erf(total * 0.7071067811865476))
    if added is not None:
        total += tl.load(added + row * outputs + column[None, :], mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * out_step + column[None, :], total.to(out.dtype.element_ty), mask=inside)


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gelu: bool,
    added: Tensor | None,
    used: Tensor | None,
    dtype: torch.dtype | None,
) -> Tensor:
    fits = added is None or added.shape == (*x.shape[:-1], len(weight))
    if not fits or not _takes(x, weight, dtype):
        return ops.linear.reference(x, weight, bias, gelu, added, used, dtype)
    weight, bias = _operands(weight, bias, dtype)
    added = None if added is None else added.contiguous()
    out = x.new_empty(*x.shape[:-1], len(weight), dtype=weight.dtype if added is None else added.dtype)
    _multiply(x.contiguous(), weight, bias, gelu, added, used, out, len(weight))
    return out


def linear_side_by_side(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    used: Tensor | None,
    dtype: torch.dtype | None,
) -> Tensor:
    if not all(_takes(x, weight, dtype) for weight in weights):
        return ops.linear_side_by_side.reference(x, weights, biases, used, dtype)
    x, first = x.contiguous(), 0
    out = x.new_empty(*x.shape[:-1], sum(map(len, weights)), dtype=dtype or x.dtype)
    for weight, bias in zip(weights, biases):
        _multiply(x, *_operands(weight, bias, dtype), False, None, used, out[..., first:], out.shape[-1])
        first += len(weight)
    return out


def _takes(x: Tensor, weight: Tensor, dtype: torch.dtype | None) -> bool:
    """Whether the kernel computes such a product; those of float32 stay with PyTorch."""
    fits = weight.dim() == 2 and x.shape[-1:] == weight.shape[1:] and x.dtype in TYPES
    return fits and (dtype or x.dtype) in SHORT_TYPES and (dtype is not None or weight.dtype == x.dtype)


def _operands(weight: Tensor, bias: Tensor | None, dtype: torch.dtype | None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias in the type of the products."""
    if dtype is not None and dtype != weight.dtype:
        weight, bias = rounded(weight, dtype), None if bias is None else rounded(bias, dtype)
    return weight.contiguous(), bias


def _multiply(
    x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool, added: Tensor | None, used: Tensor | None, out: Tensor,
    out_step: int,
) -> None:  # fmt: skip
    outputs, inputs = weight.shape
    rows = math.prod(x.shape[:-1])
    if rows and outputs:
        tile = linear_tile(rows, outputs)
        if x.element_size() > weight.element_size():
            tile["num_stages"] -= 1  # or tiles of float32 rows need more memory than a processor of an RTX card has
        grid = (triton.cdiv(rows, tile["ROWS"]) * triton.cdiv(outputs, tile["COLUMNS"]),)
        _linear[grid](
            x, weight, bias, added, used, out, rows, outputs, inputs, out_step, GELU=gelu, GROUP=8, **tile
        )  # fmt: skip


IMPLEMENTATIONS = {ops.linear: linear, ops.linear_side_by_side: linear_side_by_side}
