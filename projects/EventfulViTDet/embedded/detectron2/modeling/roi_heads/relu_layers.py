"""Convolutions that are followed by a ReLU, initialised for it, as box and mask heads have them."""

from __future__ import annotations

from detectron2.layers import Conv2d, get_norm
from torch import nn


def make_convolution(channels: int, dim: int, norm: str) -> Conv2d:
    """A 3x3 convolution from ``channels`` to ``dim`` and a ReLU; ``norm`` as in ``get_norm``, a bias where it is ""."""
    layer = Conv2d(channels, dim, 3, padding=1, bias=not norm, norm=get_norm(norm, dim), activation=nn.ReLU())
    init_for_relu(layer)
    return layer


def init_for_relu(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Draw weights that keep the scale of gradients through a ReLU; the bias, where there is one, becomes 0."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
