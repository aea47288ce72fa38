"""Linear layers and the patch embedding on a GPU: products with bias, GELU and a sum, of the rows that count.

A product is computed by our kernel, which finishes its result on the way out, or by PyTorch's library, which is faster
at large products but leaves GELU and the sum to a kernel of their own. `tuning.uses_library` says which.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from ... import ops
from ..attention import SHORT_TYPES
from ..linear import rounded
from . import device_facts
from .launch import TYPES, product
from .tuning import PRECISE_TILE, linear_tile, precise_products, uses_library

FINISHED = 2048
"""Values that a program finishes, or patches' pixels that it copies."""


@triton.jit
def _gelu(x):
    """The exact GELU to 1.5e-7: max(x, 0) - |x| Phi(-|x|), with log2 of Phi as a polynomial.

    The error function's instructions took a quarter of the time of a product of 768 channels.
    """
    size = tl.abs(x)
    power = -1.4770243979e-06 * size + 5.4802159866e-05
    power = power * size - 8.8375731139e-04
    power = power * size + 8.3651756868e-03
    power = power * size - 5.3767584264e-02
    power = power * size - 4.5855429769e-01
    power = power * size - 1.1512577534e00
    power = power * size - 9.9998891354e-01
    return tl.maximum(x, 0.0) - size * tl.exp2(power)


@triton.jit
def _linear(
    x, weight, bias, added, used, out, rows, outputs, inputs, added_rows, out_step,
    GELU: tl.constexpr, REPEATED: tl.constexpr, PRECISION: tl.constexpr, WHOLE: tl.constexpr, TMA: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """One tile of the result, (ROWS, COLUMNS). Rows of `out` are `out_step` values apart.

    REPEATED: `added` has fewer rows, `added_rows`, and begins again after them. WHOLE: inputs are a multiple of DEPTH.
    TMA: x and weight are tensor descriptors, which a GPU's copying unit reads by, instead of addresses.
    """
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
    first_row, first_column = (group * GROUP + within % height) * ROWS, within // height * COLUMNS
    row, column = first_row + tl.arange(0, ROWS), first_column + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    if TMA:
        for start in range(0, inputs, DEPTH):
            total = product(x.load([first_row, start]), weight.load([first_column, start]).T, total, PRECISION)
    else:
        depth = tl.arange(0, DEPTH)
        # What lies beyond the last row or column is computed from that one, and not stored: loads need no masks.
        x_place = x + tl.minimum(row, rows - 1).to(tl.int64)[:, None] * inputs + depth[None, :]
        weight_place = weight + tl.minimum(column, outputs - 1).to(tl.int64)[None, :] * inputs + depth[:, None]
        for start in range(0, inputs, DEPTH):
            if WHOLE:
                a, b = tl.load(x_place), tl.load(weight_place)
            else:
                rest = inputs - start
                a = tl.load(x_place, mask=(depth < rest)[None, :], other=0.0)
                b = tl.load(weight_place, mask=(depth < rest)[:, None], other=0.0)
            total = product(a.to(b.dtype), b, total, PRECISION)
            x_place += DEPTH
            weight_place += DEPTH
    if bias is not None:
        total += tl.load(bias + column, mask=column < outputs, other=0.0).to(tl.float32)[None, :]
    inside = (row < rows)[:, None] & (column < outputs)[None, :]
    # Each step rounds to the type of the layer, as PyTorch's own layers do.
    total = total.to(weight.dtype if TMA else weight.dtype.element_ty).to(tl.float32)
    if GELU:
        total = _gelu(total)
    if added is not None:
        line = row % added_rows if REPEATED else row
        place = added + line.to(tl.int64)[:, None] * outputs + column[None, :]
        total += tl.load(place, mask=inside, other=0.0).to(tl.float32)
    place = out + row.to(tl.int64)[:, None] * out_step + column[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _finish(values, added, used, out, count, repeat, outputs, GELU: tl.constexpr, BLOCK: tl.constexpr):
    """GELU and a sum of a product's values. `added` begins again after `repeat` values, the program's second index."""
    within = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    place = tl.program_id(1).to(tl.int64) * repeat + within
    if used is not None:
        count = tl.minimum(count, tl.load(used) * outputs)
    inside = (within < repeat) & (place < count)
    total = tl.load(values + place, mask=inside, other=0.0).to(tl.float32)
    if GELU:
        total = _gelu(total)
    if added is not None:
        total += tl.load(added + within, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + place, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _patches(
    images, rows, number, height, width, channels, SIZE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """Patches of SIZE x SIZE pixels as rows, of `number` tokens: ROWS of them, COLUMNS of their pixels."""
    token = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    pixel = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    across = width // SIZE
    tokens = height // SIZE * across
    image, within = token // tokens, token % tokens
    corner = (image.to(tl.int64) * channels * height + within // across * SIZE) * width + within % across * SIZE
    channel, y = pixel // (SIZE * SIZE), pixel // SIZE % SIZE
    offset = (channel * height + y) * width + pixel % SIZE
    inputs = channels * SIZE * SIZE
    inside = (token < number)[:, None] & (pixel < inputs)[None, :]
    values = tl.load(images + corner[:, None] + offset[None, :], mask=inside, other=0.0)
    place = rows + token.to(tl.int64)[:, None] * inputs + pixel[None, :]
    tl.store(place, values.to(rows.dtype.element_ty), mask=inside)


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gelu: bool,
    added: Tensor | None,
    used: Tensor | None,
    dtype: torch.dtype | None,
) -> Tensor:
    fits = added is None or (added.shape == (*x.shape[:-1], len(weight)) and added.dtype in TYPES)
    if not fits or not _takes(x, weight, dtype):
        # Not NotImplemented, after which a frame is not recorded: a CUDA graph holds these operations too.
        return ops.linear.reference(x, weight, bias, gelu, added, used, dtype)
    weight, bias = _operands(weight, bias, dtype)
    return _layer(x.contiguous(), weight, bias, gelu, added, used, weight.dtype if added is None else added.dtype)


def linear_side_by_side(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    used: Tensor | None,
    dtype: torch.dtype | None,
) -> Tensor:
    short = (dtype or x.dtype) in SHORT_TYPES
    if not short or not all(_takes(x, weight, dtype) for weight in weights):
        # As above.
        return ops.linear_side_by_side.reference(x, weights, biases, used, dtype)
    x, first = x.contiguous(), 0
    out = x.new_empty(*x.shape[:-1], sum(map(len, weights)), dtype=dtype or x.dtype)
    for weight, bias in zip(weights, biases):
        linear_by_kernel(x, *_operands(weight, bias, dtype), False, None, used, out[..., first:], out.shape[-1])
        first += len(weight)
    return out


def embed(
    images: Tensor, weight: Tensor, bias: Tensor | None, positions: Tensor | None, dtype: torch.dtype | None
) -> Tensor:
    size = weight.shape[-1]
    regular = images.dim() == weight.dim() == 4 and images.shape[1] == weight.shape[1] and weight.shape[2] == size
    if not (regular and images.shape[2] % size == images.shape[3] % size == 0 and _takes_types(images, weight, dtype)):
        return NotImplemented
    tokens = (images.shape[2] // size) * (images.shape[3] // size)
    if positions is not None and not (positions.shape == (1, tokens, len(weight)) and positions.dtype in TYPES):
        return NotImplemented
    weight, bias = _operands(weight, bias, dtype)
    # Patches do not overlap: each is one row of a matrix product.
    rows = patch_rows(images.contiguous(), size, weight.dtype)
    return _layer(rows, weight.flatten(1), bias, False, positions, None, images.dtype)


def patch_rows(images: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """Patches in the order of their tokens: (B, C, H, W) -> (B, N, C * size * size)."""
    streams, channels, height, width = images.shape
    inputs = channels * size**2
    out = images.new_empty(streams, (height // size) * (width // size), inputs, dtype=dtype)
    number = out.shape[0] * out.shape[1]
    columns = min(triton.next_power_of_2(inputs), 256)
    rows = FINISHED // columns
    if number:
        grid = (triton.cdiv(number, rows), triton.cdiv(inputs, columns))
        _patches[grid](images, out, number, height, width, channels, SIZE=size, ROWS=rows, COLUMNS=columns)
    return out


def _takes(x: Tensor, weight: Tensor, dtype: torch.dtype | None) -> bool:
    return weight.dim() == 2 and x.shape[-1:] == weight.shape[1:] and _takes_types(x, weight, dtype)


def _takes_types(x: Tensor, weight: Tensor, dtype: torch.dtype | None) -> bool:
    return x.dtype in TYPES and (dtype or x.dtype) in TYPES and (dtype is not None or weight.dtype == x.dtype)


def _operands(weight: Tensor, bias: Tensor | None, dtype: torch.dtype | None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias in the type of the products."""
    if dtype is not None and dtype != weight.dtype:
        weight, bias = rounded(weight, dtype), None if bias is None else rounded(bias, dtype)
    return weight.contiguous(), bias


def _layer(
    x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool, added: Tensor | None, used: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    """x W^T + bias, GELU of it, plus `added`, whose rows may repeat; in a given type."""
    rows, (outputs, inputs) = math.prod(x.shape[:-1]), weight.shape
    added = None if added is None else added.contiguous()
    if not (rows and outputs and inputs):
        result = F.linear(x.to(weight.dtype), weight, bias)
        result = F.gelu(result) if gelu else result
        return (result if added is None else added + result).to(dtype)
    finished = gelu or added is not None
    short = weight.dtype in SHORT_TYPES
    if uses_library(rows, inputs, outputs, finished) if short else not precise_products(rows):
        return linear_by_library(x, weight, bias, gelu, added, used, dtype)
    out = x.new_empty(*x.shape[:-1], outputs, dtype=dtype)
    linear_by_kernel(x, weight, bias, gelu, added, used, out, outputs)
    return out


def linear_by_library(
    x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool, added: Tensor | None, used: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    """The same with PyTorch's product, of all rows, and a kernel for what comes after it."""
    outputs = len(weight)
    result = F.linear(x.view(-1, x.shape[-1]).to(weight.dtype), weight, bias).view(*x.shape[:-1], outputs)
    if not gelu and added is None and dtype == result.dtype:
        return result
    out = result if dtype == result.dtype else torch.empty_like(result, dtype=dtype)
    count = result.numel()
    repeat = count if added is None else added.numel()
    grid = (triton.cdiv(repeat, FINISHED), count // repeat)
    _finish[grid](result, added, used, out, count, repeat, outputs, GELU=gelu, BLOCK=FINISHED)
    return out


def linear_by_kernel(
    x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool, added: Tensor | None, used: Tensor | None, out: Tensor,
    out_step: int,
) -> None:  # fmt: skip
    """The same in one kernel, which writes rows that lie `out_step` values apart."""
    outputs, inputs = weight.shape
    rows = math.prod(x.shape[:-1])
    if not (rows and outputs):
        return
    short = weight.dtype in SHORT_TYPES
    tile = linear_tile(rows, outputs) if short else dict(PRECISE_TILE)
    tile["TMA"] = tile["TMA"] and _takes_descriptors(x, weight)
    if x.element_size() > weight.element_size():
        tile["num_stages"] -= 1  # or tiles of float32 rows need more memory than a processor of an RTX card has
    grid = (triton.cdiv(rows, tile["ROWS"]) * triton.cdiv(outputs, tile["COLUMNS"]),)
    added_rows = rows if added is None else added.numel() // outputs
    whole = inputs % tile["DEPTH"] == 0
    if tile["TMA"]:
        # As views, a single row that is part of a longer one has its own length as its step, which a descriptor checks.
        x = TensorDescriptor.from_tensor(x.view(rows, inputs), [tile["ROWS"], tile["DEPTH"]])
        weight = TensorDescriptor.from_tensor(weight.view(outputs, inputs), [tile["COLUMNS"], tile["DEPTH"]])
    _linear[grid](
        x, weight, bias, added, used, out, rows, outputs, inputs, added_rows, out_step,
        GELU=gelu, REPEATED=added_rows < rows, PRECISION="ieee" if short else "tf32x3",
        WHOLE=whole, GROUP=8, **tile,
    )  # fmt: skip


def _takes_descriptors(x: Tensor, weight: Tensor) -> bool:
    """Whether the rows of both matrices can be read by tensor descriptors: their starts are multiples of 16 bytes."""
    aligned = all(matrix.data_ptr() % 16 == 0 for matrix in (x, weight))
    fits = x.dtype == weight.dtype and weight.shape[1] * weight.itemsize % 16 == 0 and aligned
    return fits and device_facts.has_descriptors(x.device)


IMPLEMENTATIONS = {ops.embed: embed, ops.linear: linear, ops.linear_side_by_side: linear_side_by_side}
