from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from detectron2.structures import Boxes
from torch import nn
from torchvision.ops import RoIAlign, box_area


class ROIPooler(nn.Module):
    """Cuts a fixed-size piece for every box out of the pyramid level that suits the box's size."""

    def __init__(
        self,
        output_size: int | tuple[int, int],
        scales: Sequence[float],
        sampling_ratio: int,
        pooler_type: str,
        canonical_box_size: int = 224,
        canonical_level: int = 4,
    ):
        """
        Args:
            output_size: side of the piece, or its height and width.
            scales: 1 / stride of every level, falling by halves.
            sampling_ratio: samples per output cell and axis; 0 chooses by the size of the box.
            pooler_type: "ROIAlignV2", with half-pixel offsets, or "ROIAlign", without.
            canonical_box_size: a box of this size (square root of its area, in pixels) is pooled from the level of
                stride 2 ** ``canonical_level``, one of twice the size from the next (or the last).
        """
        super().__init__()
        if pooler_type not in ("ROIAlignV2", "ROIAlign"):
            raise ValueError(f"POOLER_TYPE = {pooler_type!r} (a key of MODEL) is unknown: use ROIAlignV2 or ROIAlign")
        if any(fine != 2 * coarse for fine, coarse in zip(scales, scales[1:])) or math.log2(scales[0]) % 1:
            raise ValueError(f"levels to pool from need strides 2 ** n, 2 ** (n + 1), ...; got scales {scales}")
        self.output_size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
        self.canonical_box_size = canonical_box_size
        self.canonical_level = canonical_level
        aligned = pooler_type == "ROIAlignV2"
        self.level_poolers = nn.ModuleList(
            RoIAlign(self.output_size, scale, int(sampling_ratio), aligned) for scale in scales
        )
        self.min_level = -int(math.log2(scales[0]))

    def forward(self, x: list[torch.Tensor], box_lists: list[Boxes]) -> torch.Tensor:
        """
        Args:
            x: one map (N, C, Hi, Wi) per scale. box_lists: for every image of the batch its boxes, in pixels.

        Returns:
            (M, C, height, width) for all M boxes, image after image.
        """
        if not box_lists:
            return x[0].new_zeros((0, x[0].shape[1], *self.output_size))
        boxes = torch.cat([boxes.tensor for boxes in box_lists])
        image_index = torch.cat([boxes.tensor.new_full((len(boxes), 1), i) for i, boxes in enumerate(box_lists)])
        rois = torch.cat((image_index, boxes), dim=1)  # (M, 5)
        levels = self._levels(boxes)
        by_level = levels.argsort(stable=True)
        groups = rois[by_level].split(torch.bincount(levels, minlength=len(x)).tolist())
        pooled = torch.cat([self._pool(*level) for level in zip(self.level_poolers, x, groups)])
        return torch.empty_like(pooled).index_copy(0, by_level, pooled)

    def _pool(self, pooler: nn.Module, features: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
        # In float32: half precision would round the boxes by pixels.
        return pooler(features.float(), rois).to(features.dtype)

    def _levels(self, boxes: torch.Tensor) -> torch.Tensor:
        """(M,) index into the levels for boxes (M, 4)."""
        size = box_area(boxes).sqrt() / self.canonical_box_size
        # The small term sends empty boxes to the first level.
        level = (self.canonical_level + torch.log2(size + 1e-8)).floor() - self.min_level
        return level.clamp(0, len(self.level_poolers) - 1).long()
