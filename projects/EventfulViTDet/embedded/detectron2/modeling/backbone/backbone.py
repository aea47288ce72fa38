from __future__ import annotations

from abc import ABCMeta, abstractmethod

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from fvcore.common.registry import Registry
from torch import nn

BACKBONE_REGISTRY = Registry("BACKBONE")


def build_backbone(cfg: CfgNode, input_shape: ShapeSpec | None = None) -> Backbone:
    """The backbone registered as ``MODEL.BACKBONE.NAME``, called with (cfg, shape of the images)."""
    if input_shape is None:
        input_shape = ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN))
    return BACKBONE_REGISTRY.get(cfg.MODEL.BACKBONE.NAME)(cfg, input_shape)


class Backbone(nn.Module, metaclass=ABCMeta):
    """A network from images (N, C, H, W) to feature maps by name.

    Subclasses set ``_out_features`` (names in order) and the dicts ``_out_feature_channels`` and
    ``_out_feature_strides``.
    """

    @abstractmethod
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Feature maps by name, the largest first."""

    @property
    def size_divisibility(self) -> int:
        """Height and width of the input must be multiples of this; 0 for any."""
        return 0

    @property
    def padding_constraints(self) -> dict[str, int]:
        """For ``ImageList.from_tensors``."""
        return {}

    def output_shape(self) -> dict[str, ShapeSpec]:
        channels, strides = self._out_feature_channels, self._out_feature_strides
        return {name: ShapeSpec(channels[name], stride=strides[name]) for name in self._out_features}
