"""Pooling of regions from a pyramid on a GPU: RoIAlign on maps whose channels lie side by side, in one pass per level.

A program takes a line of a region's cells with all channels. Each region's level is found on the device, so nothing
waits for the numbers of regions per level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import triton
import triton.language as tl
from detectron2.modeling.poolers import ROIPooler
from torch import Tensor, nn

from ...errors import ConfigError
from .row_norms import as_rows

CHANNELS = 256
"""Most channels that a program takes at a time."""


@triton.jit
def _axis(start, step, sample, length):
    """Where a sample lies along an axis: the cells beside it, the weight of the second, and whether it counts."""
    place = start + (sample + 0.5) * step
    counts = (place >= -1.0) & (place <= length)
    place = tl.minimum(tl.maximum(place, 0.0), length - 1.0)
    low = place.to(tl.int32)
    return low, tl.minimum(low + 1, length - 1), place - low.to(tl.float32), counts


@triton.jit
def _pool(
    level_map, boxes, out, regions_per_image, height, width, channels, scale, level, last_level, first_level,
    canonical_size, canonical_level, sampling, ALIGNED: tl.constexpr, LINES: tl.constexpr, COLUMNS: tl.constexpr,
    CELLS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """A line of COLUMNS cells of one region (regions, LINES, COLUMNS, channels), if its level is this one."""
    region, line = (tl.program_id(0) // LINES).to(tl.int64), tl.program_id(0) % LINES
    left, top = tl.load(boxes + region * 4), tl.load(boxes + region * 4 + 1)
    right, bottom = tl.load(boxes + region * 4 + 2), tl.load(boxes + region * 4 + 3)
    # The small term sends empty regions to the first level.
    size = tl.div_rn(tl.sqrt_rn((right - left) * (bottom - top)), canonical_size) + 1e-8
    its_level = tl.floor(canonical_level + tl.log2(size)).to(tl.int32) - first_level
    if tl.minimum(tl.maximum(its_level, 0), last_level) != level:
        return
    offset = 0.5 if ALIGNED else 0.0
    left, top = left * scale - offset, top * scale - offset
    right, bottom = right * scale - offset, bottom * scale - offset
    region_height, region_width = bottom - top, right - left
    if not ALIGNED:
        region_height, region_width = tl.maximum(region_height, 1.0), tl.maximum(region_width, 1.0)
    cell_height, cell_width = tl.div_rn(region_height, LINES * 1.0), tl.div_rn(region_width, COLUMNS * 1.0)
    down, across = tl.ceil(cell_height).to(tl.int32), tl.ceil(cell_width).to(tl.int32)
    if sampling > 0:
        down, across = sampling, sampling
    step_down = tl.div_rn(cell_height, tl.maximum(down, 1).to(tl.float32))
    step_across = tl.div_rn(cell_width, tl.maximum(across, 1).to(tl.float32))
    cell = tl.arange(0, CELLS)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    known = (channel < channels) & (cell < COLUMNS)[:, None]
    image = level_map + (region // regions_per_image) * height * width * channels
    cell_left = left + cell.to(tl.float32) * cell_width
    total = tl.zeros((CELLS, CHANNELS), tl.float32)
    for j in range(0, down):
        above, below, share_below, line_counts = _axis(top + line * cell_height, step_down, j, height)
        for i in range(0, tl.where(line_counts, across, 0)):
            before, after, share_after, column_counts = _axis(cell_left, step_across, i, width)
            counts = known & column_counts[:, None]
            share_after = share_after[:, None]
            upper = tl.load(image + (above * width + before)[:, None] * channels + channel, mask=counts, other=0.0)
            value = upper.to(tl.float32) * ((1.0 - share_below) * (1.0 - share_after))
            upper = tl.load(image + (above * width + after)[:, None] * channels + channel, mask=counts, other=0.0)
            value += upper.to(tl.float32) * ((1.0 - share_below) * share_after)
            lower = tl.load(image + (below * width + before)[:, None] * channels + channel, mask=counts, other=0.0)
            value += lower.to(tl.float32) * (share_below * (1.0 - share_after))
            lower = tl.load(image + (below * width + after)[:, None] * channels + channel, mask=counts, other=0.0)
            total += value + lower.to(tl.float32) * (share_below * share_after)
    total = tl.div_rn(total, tl.full((CELLS, CHANNELS), 0.0, tl.float32) + tl.maximum(down * across, 1).to(tl.float32))
    place = out + ((region * LINES + line) * COLUMNS + cell)[:, None] * channels + channel
    tl.store(place, total.to(out.dtype.element_ty), mask=known)


@dataclass(frozen=True)
class Pooling:
    """What a ROIPooler of Detectron2 does."""

    size: tuple[int, int]
    """Lines and columns of cells of a region."""
    scales: tuple[float, ...]
    """Of each level, relative to the image."""
    sampling: int
    """Samples of a cell along each axis; 0: as many as the cell has pixels of the map."""
    aligned: bool
    """Whether pixels are shifted by a half, as in ROIAlignV2."""
    first_level: int
    canonical_size: float
    """Side in pixels of a box that is pooled from the canonical level."""
    canonical_level: float

    @classmethod
    def of(cls, pooler: nn.Module) -> Pooling:
        """Raises ConfigError for a pooler of another kind."""
        levels = list(getattr(pooler, "level_poolers", ()))
        if type(pooler) is not ROIPooler or not levels or any(not hasattr(level, "aligned") for level in levels):
            raise ConfigError(f"{type(pooler).__name__} is no ROIPooler with RoIAlign")
        first = levels[0]
        return cls(
            size=tuple(pooler.output_size),
            scales=tuple(level.spatial_scale for level in levels),
            sampling=int(first.sampling_ratio),
            aligned=bool(first.aligned),
            first_level=pooler.min_level,
            canonical_size=pooler.canonical_box_size,
            canonical_level=pooler.canonical_level,
        )

    def __call__(self, maps: Sequence[Tensor], boxes: Tensor) -> Tensor:
        """The regions of boxes.

        Args:
            maps: one per level, (B, C, H, W), whose memory is (B, H, W, C).
            boxes: (B, R, 4) in pixels, float32. An empty one gives zeros.

        Returns:
            (B * R, C, height, width), in memory (B * R, height, width, C).
        """
        images, regions, _ = boxes.shape
        channels = maps[0].shape[1]
        lines, columns = self.size
        out = maps[0].new_empty(images * regions, lines, columns, channels)
        piece = min(CHANNELS, triton.next_power_of_2(channels))
        boxes = boxes.contiguous()
        for level, (level_map, scale) in enumerate(zip(maps, self.scales)):
            if not len(out):
                break
            rows = as_rows(level_map)
            _pool[(len(out) * lines, triton.cdiv(channels, piece))](
                rows, boxes, out, regions, *rows.shape[1:3], channels, float(scale), level, len(maps) - 1,
                self.first_level, float(self.canonical_size), float(self.canonical_level), self.sampling,
                ALIGNED=self.aligned, LINES=lines, COLUMNS=columns, CELLS=triton.next_power_of_2(columns),
                CHANNELS=piece,
            )  # fmt: skip
        return out.permute(0, 3, 1, 2)
