"""What Detectron2 keeps beside its ViT: the pyramid on a plain backbone and the layer-wise learning rates."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
from detectron2.layers import Conv2d, get_norm
from torch import nn

from .backbone import Backbone


class SimpleFeaturePyramid(Backbone):
    """A pyramid from one feature map. The level of stride 2 ** n is called "p<n>", its layers "simfp_<n>"."""

    def __init__(
        self,
        net: Backbone,
        in_feature: str,
        out_channels: int,
        scale_factors: Sequence[float],
        top_block: nn.Module | None = None,
        norm: str = "LN",
        square_pad: int = 0,
    ):
        """
        Args:
            net: the plain backbone; ``in_feature`` names the one of its outputs to use.
            scale_factors: sizes of the levels relative to it, falling by halves: out of 4, 2, 1, 0.5.
            top_block: makes ``top_block.num_levels`` more levels from the level ``top_block.in_feature``.
            norm: see ``get_norm``; the levels' last convolutions have a bias only without it.
            square_pad: images are padded to this many pixels in height and width; 0 leaves them as they are.
        """
        super().__init__()
        source = net.output_shape()[in_feature]
        levels = [math.log2(source.stride / scale) for scale in scale_factors]
        if levels != list(range(int(levels[0]), int(levels[0]) + len(levels))):
            strides = [source.stride / scale for scale in scale_factors]
            raise ValueError(
                f"scale_factors (MODEL.SIMPLE_PYRAMID) must give strides 2 ** n, 2 ** (n + 1), ..., but give {strides}"
            )
        levels = [int(level) for level in levels]
        self.stages = []  # registered as simfp_<n>
        for level, scale in zip(levels, scale_factors):
            self.stages.append(_make_stage(source.channels, out_channels, scale, norm))
            self.add_module(f"simfp_{level}", self.stages[-1])
        self.scale_factors = scale_factors
        self.net = net
        self.in_feature = in_feature
        self.top_block = top_block
        if top_block is not None:
            levels += range(levels[-1] + 1, levels[-1] + 1 + top_block.num_levels)
        self._out_features = [f"p{level}" for level in levels]
        self._out_feature_strides = {f"p{level}": 2**level for level in levels}
        self._out_feature_channels = dict.fromkeys(self._out_features, out_channels)
        self._square_pad = square_pad

    @property
    def padding_constraints(self) -> dict[str, int]:
        # Sizes are not rounded up to the largest stride: Detectron2 0.6 does not either.
        return {"square_size": self._square_pad}

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (N, C, H, W) to {"p<n>": (N, out_channels, H / 2 ** n, W / 2 ** n), ...}."""
        source = self.net(x)[self.in_feature]
        levels = [stage(source) for stage in self.stages]
        if self.top_block is not None:
            levels += self.top_block(levels[self._out_features.index(self.top_block.in_feature)])
        return dict(zip(self._out_features, levels))


def _make_stage(channels: int, out_channels: int, scale: float, norm: str) -> nn.Sequential:
    """Resampling, a 1x1 and a 3x3 convolution; positions in the sequence are part of weight names."""
    half, quarter = channels // 2, channels // 4
    if scale == 4.0:
        between = [get_norm(norm, half) or nn.Identity(), nn.GELU()]
        resample = [nn.ConvTranspose2d(channels, half, 2, stride=2), *between]
        resample.append(nn.ConvTranspose2d(half, quarter, 2, stride=2))
        channels = quarter
    elif scale == 2.0:
        resample = [nn.ConvTranspose2d(channels, half, 2, stride=2)]
        channels = half
    elif scale == 1.0:
        resample = []
    elif scale == 0.5:
        resample = [nn.MaxPool2d(2)]
    else:
        raise ValueError(f"scale factor {scale} is not among 4.0, 2.0, 1.0, 0.5")
    pointwise = Conv2d(channels, out_channels, 1, bias=not norm, norm=get_norm(norm, out_channels))
    spatial = Conv2d(out_channels, out_channels, 3, padding=1, bias=not norm, norm=get_norm(norm, out_channels))
    return nn.Sequential(*resample, pointwise, spatial)


def get_vit_lr_decay_rate(name: str, lr_decay_rate: float = 1.0, num_layers: int = 12) -> float:
    """The factor on the learning rate of parameter ``name``: ``lr_decay_rate`` for every layer above its own.

    The embedding is layer 0, block i layer i + 1, all the rest of the model layer ``num_layers`` + 1 (factor 1).
    """
    layer = num_layers + 1
    if name.startswith("backbone"):
        block = re.search(r"\.blocks\.(\d+)\.", name)
        if ".pos_embed" in name or ".patch_embed" in name:
            layer = 0
        elif block and ".residual." not in name:
            layer = int(block.group(1)) + 1
    return lr_decay_rate ** (num_layers + 1 - layer)
