"""Linear layers on a CPU: float32 products of rows with packed weights.

PyTorch's float32 products run at 40 % of what an AMD processor can do; these reach twice as much and more, also for the
few rows of a small budget (docs/performance.md). Shorter types stay with PyTorch's library, which has the instructions
for them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from .. import linear as operators
from ..derived import derive
from ..linear import rounded
from .library import (
    INT,
    LONG,
    POINTER,
    address,
    available,
    call,
    contiguous,
    empty,
    function,
    kernel,
    readable,
    structure,
)
from .thread_counts import pool_threads

Linear = structure(
    "Linear", rows=POINTER, most=LONG, used=POINTER, inputs=INT, outputs=INT, weights=POINTER, bias=POINTER,
    gelu=INT, added=POINTER, added_count=LONG, out=POINTER, out_step=LONG,
)  # fmt: skip
ScaleChannels = structure("ScaleChannels", rows=POINTER, factors=POINTER, number=LONG, channels=INT, out=POINTER)
Patches = structure(
    "Patches", images=POINTER, streams=LONG, channels=INT, height=INT, width=INT, size=INT, rows=POINTER
)
Pack = structure("Pack", weights=POINTER, outputs=INT, inputs=INT, packed=POINTER)


@operators.linear.implement("CPU")
def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gelu: bool,
    added: Tensor | None,
    used: Tensor | None,
    dtype: torch.dtype | None,
) -> Tensor:
    fits = weight.dim() == 2 and x.shape[-1:] == weight.shape[1:] and dtype in (None, torch.float32)
    fits = fits and (added is None or added.shape == (*x.shape[:-1], len(weight)))
    if not (fits and _runs(x, weight, bias, added)):
        return NotImplemented
    return _product(contiguous(x), weight, bias, gelu, added, used)


@operators.linear_side_by_side.implement("CPU")
def linear_side_by_side(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    used: Tensor | None,
    dtype: torch.dtype | None,
) -> Tensor:
    fits = all(weight.dim() == 2 and x.shape[-1:] == weight.shape[1:] for weight in weights)
    if not (fits and dtype in (None, torch.float32) and all(_runs(x, *part, None) for part in zip(weights, biases))):
        return NotImplemented
    x, first = contiguous(x), 0
    out = empty((*x.shape[:-1], sum(map(len, weights))))
    for weight, bias in zip(weights, biases):
        _multiply(x, weight, bias, False, None, used, out, first)
        first += len(weight)
    return out


@operators.scale_channels.implement("CPU")
def scale_channels(rows: Tensor, factors: Tensor) -> Tensor:
    if not (readable(rows, factors) and factors.shape == rows.shape[-1:] and available()):
        return NotImplemented
    out, channels = empty(rows.shape), rows.shape[-1]
    arguments = ScaleChannels(
        rows.data_ptr(), factors.data_ptr(), rows.numel() // max(channels, 1), channels, out.data_ptr()
    )
    call("scale_channels", arguments, rows, factors, out)
    return out


@operators.embed.implement("CPU")
def embed(
    images: Tensor, weight: Tensor, bias: Tensor | None, positions: Tensor | None, dtype: torch.dtype | None
) -> Tensor:
    size = weight.shape[-1]
    fits = images.dim() == 4 and images.shape[1] == weight.shape[1] and weight.shape[2] == size
    if not (fits and images.shape[2] % size == images.shape[3] % size == 0 and _runs(images, weight, bias, positions)):
        return NotImplemented
    grid = (images.shape[2] // size, images.shape[3] // size)
    if positions is not None and positions.shape != (1, grid[0] * grid[1], len(weight)):
        return NotImplemented
    # Patches do not overlap: each is one row of a matrix product.
    rows = empty((len(images), grid[0] * grid[1], weight[0].numel()))
    images = contiguous(images)
    call("patches", Patches(images.data_ptr(), *images.shape, size, rows.data_ptr()), images, rows)
    if dtype in (None, torch.float32):
        return _product(rows, weight, bias, False, positions, None)
    weight, bias = rounded(weight, dtype).flatten(1), None if bias is None else rounded(bias, dtype)
    return operators.linear.reference(rows, weight, bias, False, positions, None, dtype).to(images.dtype)


def _runs(x: Tensor, weight: Tensor, bias: Tensor | None, added: Tensor | None) -> bool:
    sizes_fit = bias is None or bias.shape == weight.shape[:1]
    return x.dtype is torch.float32 and readable(weight, bias, added) and sizes_fit and available()


def _product(
    x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool, added: Tensor | None, used: Tensor | None
) -> Tensor:
    out = empty((*x.shape[:-1], len(weight)))
    _multiply(x, weight, bias, gelu, added, used, out)
    return out


def _multiply(
    x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool, added: Tensor | None, used: Tensor | None, out: Tensor,
    first: int = 0,
) -> None:  # fmt: skip
    """A product that is written into the columns of `out` from `first` on."""
    outputs, inputs = len(weight), x.shape[-1]
    packed = derive(weight, "packed", lambda: _pack(weight))
    arguments = Linear(
        x.data_ptr(), x.numel() // max(inputs, 1), address(used), inputs, outputs, packed.data_ptr(), address(bias),
        gelu, address(added), 0 if added is None else added.numel() // max(outputs, 1),
        out.data_ptr() + first * out.element_size(), out.shape[-1],
    )  # fmt: skip
    call("linear", arguments, x, packed, bias, added, used, out)


def _pack(weight: Tensor) -> Tensor:
    """The weights in the order that the kernel reads them."""
    outputs, inputs = len(weight), weight[0].numel()
    packed = weight.new_empty(function("packed_size", LONG, INT, INT)(outputs, inputs))
    arguments = Pack(weight.data_ptr(), outputs, inputs, packed.data_ptr())
    kernel("pack")(ctypes.addressof(arguments), pool_threads())
    return packed
