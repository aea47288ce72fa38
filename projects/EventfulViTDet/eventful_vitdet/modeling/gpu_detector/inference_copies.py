"""Copies of layers for inference on a GPU: channels last, products in a short type, norms and ReLUs in few passes.

Parameters that need no change are shared with the original; the others are copied when weights change.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from detectron2.layers import get_norm
from eventful_vit import ops
from torch import Tensor, nn

from .bias_and_relu import ConvolutionReLU, has_bias_and_relu

LAYER_NORM = type(get_norm("LN", 1))
"""Detectron2's layer norm over the channels of a map."""
_OWN_TYPE = (nn.modules.batchnorm._BatchNorm,)
"""Norms that take maps in a short type with parameters in float32."""

Module = TypeVar("Module", bound=nn.Module)


class RowsNorm(nn.Module):
    """A layer norm over the channels of a map (B, C, H, W), read and written as rows (B, H, W, C)."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1).contiguous()
        return ops.normalise(rows, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


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
        elif has_bias_and_relu(part):
            memo[id(part)] = ConvolutionReLU(part, _prepared(part.weight, dtype))
        for parameter in part.parameters(recurse=False):
            memo.setdefault(id(parameter), _prepared(parameter, None if isinstance(part, _OWN_TYPE) else dtype))
    for buffer in module.buffers():
        memo[id(buffer)] = buffer
    return copy.deepcopy(module, memo)


def _prepared(parameter: nn.Parameter, dtype: torch.dtype | None) -> nn.Parameter:
    layout = torch.channels_last if parameter.dim() == 4 else torch.preserve_format
    changed = parameter.detach().to(dtype or parameter.dtype, memory_format=layout)
    if changed.data_ptr() == parameter.data_ptr():
        return parameter
    return nn.Parameter(changed, requires_grad=False)
