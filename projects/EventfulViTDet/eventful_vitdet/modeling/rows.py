"""Detectron2's layers that treat every position by itself, on rows of channels (..., C) in place of maps."""

from __future__ import annotations

from typing import Callable

import torch.nn.functional as F
from detectron2.layers import get_norm
from torch import Tensor, nn

from ..eventful.attention.position import parameter_stamp

RowFunction = Callable[[Tensor], Tensor]

_LAYER_NORM = type(get_norm("LN", 1))


class Rearranged:
    """A rearranged copy of a parameter, made again whenever the parameter's content may have changed."""

    def __init__(self, arrange: Callable[[Tensor], Tensor]) -> None:
        self._arrange = arrange
        self._stamp: tuple | None = None
        self._copy: Tensor | None = None

    def __call__(self, parameter: Tensor) -> Tensor:
        stamp = parameter_stamp(parameter)
        if self._copy is None or self._stamp != stamp:
            self._stamp, self._copy = stamp, self._arrange(parameter)
        return self._copy


def pointwise(rows: Tensor, convolution: nn.Conv2d) -> Tensor:
    """A 1x1 convolution alone, without its norm."""
    return F.linear(rows, convolution.weight.flatten(1), convolution.bias)


def row_norm(norm: nn.Module | None, name: str) -> RowFunction:
    """A norm of Detectron2 as a function of rows.

    Raises:
        ValueError: a norm that mixes positions, or one that is not known.
    """
    if norm is None or isinstance(norm, nn.Identity):
        return lambda rows: rows
    if isinstance(norm, _LAYER_NORM):
        return lambda rows: F.layer_norm(rows, norm.weight.shape, norm.weight, norm.bias, norm.eps)
    if isinstance(norm, nn.BatchNorm2d):
        return lambda rows: F.batch_norm(
            rows, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps
        )
    raise ValueError(
        f"{name}: {type(norm).__name__} cannot be updated position by position; with MODEL.EVENTFUL.PYRAMID.ENABLED "
        "norms must be LN or BN, or none"
    )


def check_convolution(name: str, layer: nn.Module, side: int) -> None:
    """Raise ValueError unless a layer is a plain convolution of side x side that keeps the size of its map."""
    plain = (
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (side, side)
        and layer.stride == layer.dilation == (1, 1)
        and layer.padding in ((side // 2, side // 2), "same")
        and layer.padding_mode == "zeros"
        and layer.groups == 1
    )
    if not plain:
        raise ValueError(f"{name}: expected a convolution of {side}x{side} with stride 1, found {layer}")
