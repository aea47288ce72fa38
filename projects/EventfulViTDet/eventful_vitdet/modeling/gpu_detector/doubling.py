"""The layers of a pyramid that double a map's sides, on a GPU: products of positions, as none of them looks beside it.

A transposed convolution of 2 x 2 at stride 2 makes four positions of each. A 1 x 1 convolution right after it is part
of the same product. Rows stay in the order that the products make, and the last norm writes them to their places.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from detectron2.layers import Conv2d
from torch import Tensor, nn

from .inference_copies import LAYER_NORM, activation_name
from .row_norms import as_rows, norm_rows


@dataclass(frozen=True)
class _Step:
    """A product that makes four rows of each, and the norm of these."""

    weight: Tensor
    """(4 * out, in, 1, 1)"""
    bias: Tensor | None
    norm: nn.Module
    activation: str


class Doubling(nn.Module):
    """Doubling layers that follow upon each other, for inference."""

    def __init__(self, steps: list[_Step]) -> None:
        super().__init__()
        self._steps = steps

    def forward(self, source: Tensor) -> Tensor:
        """(B, C, h, w), whose memory is (B, h, w, C), to (B, C', h * 2 ** n, w * 2 ** n) alike."""
        images, _, height, width = source.shape
        x, fours = source, []
        for step in self._steps:
            rows = as_rows(F.conv2d(x, step.weight))
            fours.append(4)
            rows = rows.view(images, height, width, *fours, -1)
            is_last = step is self._steps[-1]
            rows = norm_rows(
                rows, step.bias, step.norm.weight, step.norm.bias, step.norm.eps, step.activation,
                len(fours) if is_last else 0,
            )  # fmt: skip
            x = (rows if is_last else rows.view(images, height, -1, rows.shape[-1])).permute(0, 3, 1, 2)
        return x


@torch.inference_mode(False)
@torch.no_grad()
def take_doubling(stage: nn.Module, dtype: torch.dtype | None) -> tuple[Doubling | None, nn.Module]:
    """The doubling layers that a stage begins with (None: it has none of this kind), and the others.

    Args:
        dtype: of the products; None is that of the weights.
    """
    steps, layers = [], list(stage) if type(stage) is nn.Sequential else []
    while layers and _doubles(layers[0]):
        transposed, *layers = layers
        weight = transposed.weight.double().permute(2, 3, 1, 0)  # (2, 2, out, in)
        bias = None if transposed.bias is None else transposed.bias.double()
        if layers and type(layers[0]) is LAYER_NORM:
            norm, *layers = layers
            activation = activation_name(layers[0]) if layers else None
            layers = layers[1:] if activation else layers
        elif layers and _is_pointwise(layers[0]):
            pointwise, *layers = layers
            matrix = pointwise.weight.double().flatten(1)
            weight = matrix @ weight
            if bias is not None:
                bias = matrix @ bias
            if pointwise.bias is not None:
                bias = pointwise.bias.double() + (0 if bias is None else bias)
            norm, activation = pointwise.norm, activation_name(pointwise.activation)
        else:
            return None, stage
        weight = weight.flatten(0, 2)[:, :, None, None].to(dtype or transposed.weight.dtype)
        weight = weight.contiguous(memory_format=torch.channels_last)
        steps.append(_Step(weight, None if bias is None else bias.float(), norm, activation or ""))
    return (Doubling(steps), nn.Sequential(*layers)) if steps else (None, stage)


def _doubles(layer: nn.Module) -> bool:
    if type(layer) is not nn.ConvTranspose2d or layer.kernel_size != (2, 2) or layer.stride != (2, 2):
        return False
    return (layer.padding, layer.output_padding, layer.dilation, layer.groups) == ((0, 0), (0, 0), (1, 1), 1)


def _is_pointwise(layer: nn.Module) -> bool:
    """Whether a layer is a 1 x 1 convolution with a layer norm."""
    if type(layer) is not Conv2d or layer.kernel_size != (1, 1) or layer.stride != (1, 1) or layer.groups != 1:
        return False
    is_known = layer.activation is None or activation_name(layer.activation) is not None
    return layer.padding == (0, 0) and type(layer.norm) is LAYER_NORM and is_known
