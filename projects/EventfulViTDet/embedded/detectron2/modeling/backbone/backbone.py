from __future__ import annotations

from abc import ABCMeta, abstractmethod

import torch
from detectron2.layers import ShapeSpec
from fvcore.common.registry import Registry
from torch import nn

BACKBONE_REGISTRY = Registry("BACKBONE")


class Backbone(nn.Module, metaclass=ABCMeta):
    """A network from images (N, C, H, W) to feature maps by name.

    Subclasses set ``_out_features`` (names in order) and the dicts ``_out_feature_channels`` and
    ``_out_feature_strides``.
    """

    @abstractmethod
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Feature maps by name, the largest first."""

    @property
    def padding_constraints(self) -> dict[str, int]:
        """For ``ImageList.from_tensors``."""
        return {}

    def output_shape(self) -> dict[str, ShapeSpec]:
        channels, strides = self._out_feature_channels, self._out_feature_strides
        return {name: ShapeSpec(channels[name], stride=strides[name]) for name in self._out_features}
