from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes
from torch import nn

FloatLists = Union[Sequence[Sequence[float]], Sequence[float]]


class DefaultAnchorGenerator(nn.Module):
    """Boxes of fixed sizes and shapes at every position of every feature map."""

    box_dim = 4

    @configurable
    def __init__(self, *, sizes: FloatLists, aspect_ratios: FloatLists, strides: Sequence[int], offset: float = 0.5):
        """
        Args:
            sizes: square roots of the anchors' areas in pixels, a list per feature map or one for all.
            aspect_ratios: height / width, likewise.
            offset: where in its cell an anchor's centre lies, in strides, within [0, 1).
        """
        super().__init__()
        if not 0.0 <= offset < 1.0:
            raise ValueError(f"MODEL.ANCHOR_GENERATOR.OFFSET must be at least 0 and below 1, got {offset}")
        self.strides = list(strides)
        self.offset = offset
        sizes = _one_list_per_map(sizes, len(self.strides), "SIZES")
        aspect_ratios = _one_list_per_map(aspect_ratios, len(self.strides), "ASPECT_RATIOS")
        self.num_anchors = [len(s) * len(r) for s, r in zip(sizes, aspect_ratios)]
        for index, (map_sizes, map_ratios) in enumerate(zip(sizes, aspect_ratios)):
            # Buffers so that they move with the model, but no part of a checkpoint.
            self.register_buffer(f"cell_anchors_{index}", _cell_anchors(map_sizes, map_ratios), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Sequence[ShapeSpec]) -> dict[str, Any]:
        """All arguments from MODEL.ANCHOR_GENERATOR and the shapes of the feature maps."""
        keys = cfg.MODEL.ANCHOR_GENERATOR
        strides = [shape.stride for shape in input_shape]
        return {"sizes": keys.SIZES, "aspect_ratios": keys.ASPECT_RATIOS, "strides": strides, "offset": keys.OFFSET}

    def forward(self, features: list[torch.Tensor]) -> list[Boxes]:
        """H * W * A anchors for every map (N, C, H, W), ordered by row, column, size, aspect ratio."""
        return [self._grid_anchors(index, features[index].shape[-2:]) for index in range(len(features))]

    def _grid_anchors(self, index: int, grid: tuple[int, int]) -> Boxes:
        cell_anchors = getattr(self, f"cell_anchors_{index}")
        stride, device = self.strides[index], cell_anchors.device
        ys, xs = ((torch.arange(side, device=device) + self.offset) * stride for side in grid)
        y, x = torch.meshgrid(ys, xs, indexing="ij")
        centers = torch.stack((x, y, x, y), dim=-1)  # (H, W, 4)
        return Boxes((centers[:, :, None] + cell_anchors).reshape(-1, 4))


def _one_list_per_map(values: FloatLists, num_maps: int, key: str) -> Sequence[Sequence[float]]:
    if len(values) == 0:
        raise ValueError(f"MODEL.ANCHOR_GENERATOR.{key} is empty")
    if not isinstance(values[0], Sequence):
        values = [values]
    if len(values) == 1:
        values = list(values) * num_maps
    if len(values) != num_maps:
        raise ValueError(f"MODEL.ANCHOR_GENERATOR.{key} has {len(values)} lists for {num_maps} feature maps")
    return values


def _cell_anchors(sizes: Sequence[float], aspect_ratios: Sequence[float]) -> torch.Tensor:
    """(len(sizes) * len(aspect_ratios), 4) boxes around the origin."""
    area = torch.tensor(sizes, dtype=torch.float64)[:, None] ** 2
    ratio = torch.tensor(aspect_ratios, dtype=torch.float64)
    width = (area / ratio).sqrt()
    height = ratio * width
    return (torch.stack((-width, -height, width, height), dim=-1) / 2).reshape(-1, 4).float()
