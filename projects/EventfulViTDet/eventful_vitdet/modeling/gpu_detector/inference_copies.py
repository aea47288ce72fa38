"""Copies of layers for inference on a GPU: channels last, products in a short type, norms and ReLUs in few passes.

Parameters that need no change are shared with the original; the others are copied when weights change.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d, get_norm
from torch import Tensor, nn

from .bias_and_relu import ConvolutionReLU, has_bias_and_relu
from .row_norms import as_rows, norm_rows

LAYER_NORM = type(get_norm("LN", 1))
"""Detectron2's layer norm over the channels of a map."""
_FLOAT32_NORMS = (nn.modules.batchnorm._BatchNorm,)
"""Norms that take maps in a short type with parameters in float32."""

Module = TypeVar("Module", bound=nn.Module)


class RowsNorm(nn.Module):
    """A layer norm over the channels of a map (B, C, H, W), read and written as rows (B, H, W, C)."""

    def __init__(self, norm: nn.Module, bias: Tensor | None = None, activation: str = "") -> None:
        """
        Args:
            bias: added before the norm.
            activation: applied after it, by its name in `norm_rows`.
        """
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self._added, self._activation = bias, activation

    def forward(self, x: Tensor) -> Tensor:
        rows = norm_rows(as_rows(x), self._added, self.weight, self.bias, self.eps, self._activation)
        return rows.permute(0, 3, 1, 2)


class NormedConvolution(nn.Module):
    """Detectron2's convolution with a layer norm, and perhaps an activation, for inference."""

    def __init__(self, layer: nn.Conv2d, weight: nn.Parameter) -> None:
        """
        Args:
            weight: the layer's, as it is to be used.
        """
        super().__init__()
        bias = None if layer.bias is None else layer.bias.detach().float()
        self.weight = weight
        self.norm = RowsNorm(layer.norm, bias, activation_name(layer.activation) or "")
        self._arguments = (layer.stride, layer.padding, layer.dilation, layer.groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.conv2d(x, self.weight, None, *self._arguments))


class RowsFlatten(nn.Module):
    """Maps (R, C, H, W) to (R, H * W * C)."""

    def forward(self, x: Tensor) -> Tensor:
        return as_rows(x).flatten(1)


@torch.inference_mode(False)
@torch.no_grad()
def flatten_rows(head: nn.Sequential, size: tuple[int, int]) -> None:
    """Have a copy of a box head flatten its maps, of a size (H, W), as they lie in memory."""
    layers = list(head.named_children())
    for (name, layer), (_, following) in zip(layers, layers[1:]):
        if type(layer) is nn.Flatten and type(following) is nn.Linear and layer.start_dim == 1:
            weight = following.weight.unflatten(1, (-1, *size)).permute(0, 2, 3, 1).flatten(1)
            following.weight = nn.Parameter(weight, requires_grad=False)
            setattr(head, name, RowsFlatten())


def activation_name(activation: object) -> str | None:
    """What `norm_rows` calls an activation; None: it has none of this kind."""
    if activation is F.relu or type(activation) is nn.ReLU:
        return "relu"
    is_exact = type(activation) is nn.GELU and activation.approximate == "none"
    return "gelu" if is_exact or activation is F.gelu else None


def _has_layer_norm(layer: nn.Module) -> bool:
    """Whether a layer is Detectron2's convolution with a layer norm and nothing that `NormedConvolution` lacks."""
    if type(layer) is not Conv2d or type(layer.norm) is not LAYER_NORM or layer.padding_mode != "zeros":
        return False
    return layer.activation is None or activation_name(layer.activation) is not None


@torch.inference_mode(False)
@torch.no_grad()
def copy_for_inference(module: Module, dtype: torch.dtype | None) -> Module:
    """A copy of a module for inference, on the same parameters where they need no change.

    Args:
        dtype: of its products; None keeps that of the weights.
    """
    memo: dict[int, object] = {}  # what deepcopy finds here, it does not copy
    for part in module.modules():
        if type(part) is LAYER_NORM:
            memo[id(part)] = RowsNorm(part)
        elif _has_layer_norm(part):
            memo[id(part)] = NormedConvolution(part, _prepared(part.weight, dtype))
        elif has_bias_and_relu(part):
            memo[id(part)] = ConvolutionReLU(part, _prepared(part.weight, dtype))
        for parameter in part.parameters(recurse=False):
            memo.setdefault(id(parameter), _prepared(parameter, None if isinstance(part, _FLOAT32_NORMS) else dtype))
    for buffer in module.buffers():
        memo[id(buffer)] = buffer
    return copy.deepcopy(module, memo)


def _prepared(parameter: nn.Parameter, dtype: torch.dtype | None) -> nn.Parameter:
    layout = torch.channels_last if parameter.dim() == 4 else torch.preserve_format
    changed = parameter.detach().to(dtype or parameter.dtype, memory_format=layout)
    if changed.data_ptr() == parameter.data_ptr():
        return parameter
    return nn.Parameter(changed, requires_grad=False)
