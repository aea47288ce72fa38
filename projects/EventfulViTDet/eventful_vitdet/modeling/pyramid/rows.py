"""Detectron2's layers that treat every position by itself, on rows of channels (..., C) in place of maps."""

from __future__ import annotations

import torch.nn.functional as F
from detectron2.layers import get_norm
from eventful_vit.ops.derived import derive
from torch import Tensor, nn

from ...errors import ConfigError

_LAYER_NORM = type(get_norm("LN", 1))


def pointwise(rows: Tensor, convolution: nn.Conv2d) -> Tensor:
    """A 1x1 convolution only, without its norm."""
    return F.linear(rows, convolution.weight.flatten(1), convolution.bias)


class RowLayer:
    """A norm, an activation or a transposed convolution of Detectron2 on rows of channels; its parameters stay
    there."""

    def __call__(self, rows: Tensor) -> Tensor:
        raise NotImplementedError


class Unchanged(RowLayer):
    """No layer."""

    def __call__(self, rows: Tensor) -> Tensor:
        return rows


class LayerNormRows(RowLayer):
    """Detectron2's layer norm over channels."""

    def __init__(self, norm: nn.Module) -> None:
        self._norm = norm

    def __call__(self, rows: Tensor) -> Tensor:
        norm = self._norm
        return F.layer_norm(rows, norm.weight.shape, norm.weight, norm.bias, norm.eps)


class BatchNormRows(RowLayer):
    """Batch norm in inference."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        self._norm = norm

    def __call__(self, rows: Tensor) -> Tensor:
        norm = self._norm
        return F.batch_norm(
            rows, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps
        )


class GELURows(RowLayer):
    """GELU."""

    def __init__(self, layer: nn.GELU) -> None:
        self._layer = layer

    def __call__(self, rows: Tensor) -> Tensor:
        return F.gelu(rows, approximate=self._layer.approximate)


class TransposedConvolutionRows(RowLayer):
    """A 2x2 transposed convolution with stride 2: (R, C) -> (R * 4, C'), the four parts of each position in order."""

    def __init__(self, name: str, layer: nn.ConvTranspose2d) -> None:
        """Raises ValueError, beginning with `name`, for another kind of layer."""
        fits = (
            layer.kernel_size == layer.stride == (2, 2)
            and layer.padding == layer.output_padding == (0, 0)
            and layer.dilation == (1, 1)
            and layer.groups == 1
        )
        if not fits:
            raise ValueError(f"{name}: expected a transposed convolution of 2x2 with stride 2, found {layer}")
        self._layer = layer

    def __call__(self, rows: Tensor) -> Tensor:
        layer = self._layer
        weight = derive(layer.weight, "rows", self._arrange)
        bias = None if layer.bias is None else layer.bias.repeat(4)
        return F.linear(rows, weight, bias).view(-1, layer.out_channels)

    def _arrange(self) -> Tensor:
        return self._layer.weight.detach().permute(2, 3, 1, 0).flatten(0, 2).contiguous()


def row_layer(name: str, layer: nn.Module | None) -> RowLayer:
    """The same layer on rows.

    Raises:
        ConfigError: a layer that mixes positions, or one that is not known; the message begins with `name`.
    """
    if layer is None or isinstance(layer, nn.Identity):
        return Unchanged()
    if isinstance(layer, nn.ConvTranspose2d):
        return TransposedConvolutionRows(name, layer)
    if isinstance(layer, nn.GELU):
        return GELURows(layer)
    if isinstance(layer, _LAYER_NORM):
        return LayerNormRows(layer)
    if isinstance(layer, nn.BatchNorm2d):
        return BatchNormRows(layer)
    raise ConfigError(
        f"{name}: {type(layer).__name__} cannot be updated position by position; with MODEL.EVENTFUL.PYRAMID.ENABLED "
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
