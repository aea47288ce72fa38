"""A convolution with bias and ReLU on a GPU. PyTorch passes over its result three times. cuDNN does so once; where it
cannot, this does so twice."""

from __future__ import annotations

import logging

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from detectron2.layers import Conv2d
from torch import Tensor, nn

BLOCK = 4096
"""Values of a program."""

logger = logging.getLogger(__name__)


@triton.jit
def _add_and_cut(x, bias, count, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """max(x + bias, 0) in place; channels lie side by side."""
    first = tl.program_id(0).to(tl.int64) * BLOCK
    place = first + tl.arange(0, BLOCK)
    inside = place < count
    channel = ((first % CHANNELS).to(tl.int32) + tl.arange(0, BLOCK)) % CHANNELS
    total = tl.load(x + place, mask=inside).to(tl.float32) + tl.load(bias + channel, mask=inside)
    # A NaN stays one.
    total = tl.where(total < 0.0, 0.0, total)
    tl.store(x + place, total.to(x.dtype.element_ty), mask=inside)


def has_bias_and_relu(layer: nn.Module) -> bool:
    """Whether a layer is Detectron2's convolution with these two, and without a norm."""
    if type(layer) is not Conv2d or layer.norm is not None or layer.bias is None:
        return False
    return layer.activation is F.relu or type(layer.activation) is nn.ReLU


class ConvolutionReLU(nn.Module):
    """Such a layer for inference."""

    def __init__(self, layer: nn.Conv2d, weight: nn.Parameter) -> None:
        """
        Args:
            weight: the layer's, as it is to be used.
        """
        super().__init__()
        self.weight = weight
        self.bias = nn.Parameter(layer.bias.detach().float(), requires_grad=False)
        self._short_bias = self.bias.detach().to(weight.dtype)
        self._arguments = (layer.stride, layer.padding, layer.dilation, layer.groups)
        self._in_one_pass = torch.version.cuda is not None and not isinstance(layer.padding, str)
        self._in_one_pass &= hasattr(torch, "cudnn_convolution_relu")

    def forward(self, x: Tensor) -> Tensor:
        if self._in_one_pass and x.is_cuda and torch.backends.cudnn.enabled:
            try:
                # A NaN may become 0 here.
                return torch.cudnn_convolution_relu(x, self.weight, self._short_bias, *self._arguments)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:  # cuDNN has no such kernel for this layer or GPU
                self._in_one_pass = False
                logger.debug("GPU: bias and ReLU of a convolution run in a pass of their own: %s", error)
        out = F.conv2d(x, self.weight, None, *self._arguments).contiguous(memory_format=torch.channels_last)
        _add_and_cut[(triton.cdiv(out.numel(), BLOCK),)](
            out, self.bias, out.numel(), CHANNELS=out.shape[1], BLOCK=BLOCK
        )
        return out
