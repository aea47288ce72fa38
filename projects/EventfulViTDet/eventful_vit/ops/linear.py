"""Operators on rows of channels: linear layers, and the patch embedding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .derived import derive_or_differentiate
from .operator import operator


def _linear_shapes(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gelu: bool,
    added: Tensor | None,
    used: Tensor | None,
    dtype: torch.dtype | None,
) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0], dtype=(dtype or x.dtype) if added is None else added.dtype)


def _linear_flops(x: Tensor, weight: Tensor, bias, gelu, added, used, *args, out_val: Tensor, **kwargs) -> int:
    rows = x.numel() // x.shape[-1] if used is None else int(used)
    return 2 * rows * weight.numel()


@operator(
    "linear(Tensor x, Tensor weight, Tensor? bias, bool gelu, Tensor? added, Tensor? used, ScalarType? dtype) "
    "-> Tensor",
    shapes=_linear_shapes,
    flops=_linear_flops,
)
def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    gelu: bool,
    added: Tensor | None,
    used: Tensor | None,
    dtype: torch.dtype | None,
) -> Tensor:
    """x W^T + bias, the exact GELU of it where asked for, and plus `added`: (..., inputs) -> (..., outputs).

    Args:
        added: (..., outputs), such as the residual stream; the sum has its type.
        used: () int64, how many of the rows count; the others' results are undefined. None: all.
        dtype: type that operands are rounded to and the product has; None keeps that of the weights.
    """
    if dtype is not None and dtype != weight.dtype:
        weight, bias = rounded(weight, dtype), None if bias is None else rounded(bias, dtype)
    result = F.linear(x if dtype is None else x.to(dtype), weight, bias)
    result = F.gelu(result) if gelu else result
    return result if added is None else added + result.to(added.dtype)


def _side_by_side_shapes(x: Tensor, weights: Sequence[Tensor], biases, used, dtype: torch.dtype | None) -> Tensor:
    return x.new_empty(*x.shape[:-1], sum(map(len, weights)), dtype=dtype or x.dtype)


def _side_by_side_flops(x: Tensor, weights: Sequence[Tensor], biases, used, *args, out_val: Tensor, **kwargs) -> int:
    return sum(_linear_flops(x, weight, None, False, None, used, out_val=out_val) for weight in weights)


@operator(
    "linear_side_by_side(Tensor x, Tensor[] weights, Tensor?[] biases, Tensor? used, ScalarType? dtype) -> Tensor",
    shapes=_side_by_side_shapes,
    flops=_side_by_side_flops,
)
def linear_side_by_side(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    used: Tensor | None,
    dtype: torch.dtype | None,
) -> Tensor:
    """Several linear layers on the same rows, their results side by side: (..., inputs) -> (..., all outputs)."""
    parts = (linear.reference(x, *part, False, None, used, dtype) for part in zip(weights, biases))
    return torch.cat(list(parts), dim=-1)


def _scale_shapes(rows: Tensor, factors: Tensor) -> Tensor:
    return torch.empty_like(rows, memory_format=torch.contiguous_format)


@operator("scale_channels(Tensor rows, Tensor factors) -> Tensor", shapes=_scale_shapes)
def scale_channels(rows: Tensor, factors: Tensor) -> Tensor:
    """rows * factors of the channels: (..., D) -> (..., D)."""
    return (rows * factors).contiguous()


def rounded(parameter: Tensor, dtype: torch.dtype) -> Tensor:
    """A parameter in a shorter type; kept for inference, differentiable in training."""
    return derive_or_differentiate(parameter, dtype, lambda parameter: parameter.to(dtype))


def _embed_shapes(
    images: Tensor, weight: Tensor, bias: Tensor | None, positions: Tensor | None, dtype: torch.dtype | None
) -> Tensor:
    size = weight.shape[-1]
    tokens = (images.shape[-2] // size) * (images.shape[-1] // size)
    return images.new_empty(images.shape[0], tokens, weight.shape[0])


def _embed_flops(images: Tensor, weight: Tensor, *args, out_val: Tensor, **kwargs) -> int:
    return 2 * out_val.numel() * weight[0].numel()


@operator(
    "embed(Tensor images, Tensor weight, Tensor? bias, Tensor? positions, ScalarType? dtype) -> Tensor",
    shapes=_embed_shapes,
    flops=_embed_flops,
)
def embed(
    images: Tensor, weight: Tensor, bias: Tensor | None, positions: Tensor | None, dtype: torch.dtype | None
) -> Tensor:
    """Patches to tokens: (B, C, H, W) -> (B, N, D), by a convolution (D, C, p, p) with stride p, plus positions (1, N,
    D).

    Args:
        dtype: type that operands are rounded to, and the product is computed in; None keeps that of the weights. Tokens
            have the type of the images.
    """
    if dtype is not None and dtype != weight.dtype:
        weight, bias = rounded(weight, dtype), None if bias is None else rounded(bias, dtype)
    product = F.conv2d(images if dtype is None else images.to(dtype), weight, bias, stride=weight.shape[-2:])
    tokens = product.flatten(2).transpose(1, 2).contiguous()
    tokens = tokens if dtype is None else tokens.to(images.dtype)
    return tokens if positions is None else tokens + positions
