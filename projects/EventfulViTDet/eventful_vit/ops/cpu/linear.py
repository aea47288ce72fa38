"""Linear layers on a CPU: float32 products of rows with packed weights.

PyTorch's float32 products run at 40 % of what an AMD processor can do; these reach twice as much and more, also for the few
rows of a small budget (docs/performance.md). Shorter types stay with PyTorch's library, which has the instructions for them.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from .. import linear as operators
from ..derived import derive
from .library import INT, LONG, POINTER, address, available, call, contiguous, function, kernel, readable, structure

Linear = structure(
    "Linear", rows=POINTER, count=LONG, inputs=INT, outputs=INT, weights=POINTER, bias=POINTER, gelu=INT, out=POINTER
)
Pack = structure("Pack", weights=POINTER, outputs=INT, inputs=INT, packed=POINTER)


@operators.linear.implement("CPU")
def linear(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool, dtype: torch.dtype | None) -> Tensor:
    fits = x.dim() > 0 and weight.dim() == 2 and x.shape[-1] == weight.shape[1] and dtype in (None, torch.float32)
    if not (fits and _runs(x, weight, bias)):
        return NotImplemented
    return _product(contiguous(x), weight, bias, gelu)


@operators.embed.implement("CPU")
def embed(images: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    size = weight.shape[-1]
    fits = images.dim() == 4 and images.shape[1] == weight.shape[1] and weight.shape[2] == size
    if not (fits and images.shape[2] % size == images.shape[3] % size == 0 and _runs(images, weight, bias)):
        return NotImplemented
    # Patches do not overlap: each is one row of a matrix product.
    patches = images.unflatten(3, (-1, size)).unflatten(2, (-1, size)).permute(0, 2, 4, 1, 3, 5)
    return _product(contiguous(patches).view(len(patches), -1, weight[0].numel()), weight, bias, False)


def _runs(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    sizes_fit = bias is None or bias.shape == weight.shape[:1]
    return x.dtype is torch.float32 and readable(weight, bias) and sizes_fit and available()


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: bool) -> Tensor:
    outputs, inputs = len(weight), x.shape[-1]
    out = x.new_empty(*x.shape[:-1], outputs)
    packed = derive(weight, "packed", lambda: _pack(weight))
    arguments = Linear(
        x.data_ptr(), x.numel() // max(inputs, 1), inputs, outputs, packed.data_ptr(), address(bias), gelu, out.data_ptr()
    )
    call("linear", arguments, x, packed, bias, out)
    return out


def _pack(weight: Tensor) -> Tensor:
    """The weights in the order that the kernel reads them."""
    outputs, inputs = len(weight), weight[0].numel()
    packed = weight.new_empty(function("packed_size", LONG, INT, INT)(outputs, inputs))
    arguments = Pack(weight.data_ptr(), outputs, inputs, packed.data_ptr())
    kernel("pack")(ctypes.addressof(arguments), torch.get_num_threads())
    return packed
