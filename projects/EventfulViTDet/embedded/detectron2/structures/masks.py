"""Masks of an image's objects: as bitmaps, or as the polygons that they are annotated with."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torchvision.ops import roi_align

from .boxes import Boxes

SMALLEST_SIDE = 0.1
"""Pixels; a box to crop to counts as at least so wide and high."""


def polygons_to_bitmask(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """The pixels (height, width) that an object covers, bool; each polygon is x0, y0, x1, y1, ... in pixels."""
    from pycocotools import mask as coco_mask  # needed for masks of annotations only: training and evaluation

    if not len(polygons):
        return np.zeros((height, width), bool)
    parts = coco_mask.frPyObjects([np.asarray(polygon, np.float64) for polygon in polygons], height, width)
    return coco_mask.decode(coco_mask.merge(parts)).astype(bool)


class BitMasks:
    """N masks as a bool tensor (N, H, W) (``.tensor``)."""

    def __init__(self, tensor: torch.Tensor | np.ndarray):
        tensor = torch.as_tensor(tensor).to(torch.bool)
        if tensor.dim() != 3:
            raise ValueError(f"masks need shape (N, H, W), got {tuple(tensor.shape)}")
        self.image_size = tensor.shape[1:]
        self.tensor = tensor

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def to(self, *args, **kwargs) -> BitMasks:
        return BitMasks(self.tensor.to(*args, **kwargs))

    def nonempty(self) -> torch.Tensor:
        """(N,) bool: the mask has a pixel."""
        return self.tensor.flatten(1).any(dim=1)

    def get_bounding_boxes(self) -> Boxes:
        """The smallest boxes around the masks, zeros for an empty one."""
        return Boxes(torch.tensor([_extent(mask) for mask in self.tensor.cpu()]).reshape(-1, 4))

    def crop_and_resize(self, boxes: torch.Tensor, mask_size: int) -> torch.Tensor:
        """(N, mask_size, mask_size) bool: what each mask looks like in its box (N, 4)."""
        own_image = torch.arange(len(boxes), device=self.device, dtype=torch.float32)[:, None]
        rois = torch.cat((own_image, boxes.to(self.device, torch.float32)), dim=1)
        share = roi_align(self.tensor[:, None].float(), rois, (mask_size, mask_size), 1.0, 0, aligned=True)
        return share[:, 0] >= 0.5

    @staticmethod
    def from_polygon_masks(polygon_masks: PolygonMasks | list[list[np.ndarray]], height: int, width: int) -> BitMasks:
        """The pixels that polygons cover in an image of that size."""
        objects = polygon_masks.polygons if isinstance(polygon_masks, PolygonMasks) else polygon_masks
        masks = [polygons_to_bitmask(polygons, height, width) for polygons in objects]
        return BitMasks(np.stack(masks) if masks else np.zeros((0, height, width), bool))

    @staticmethod
    def cat(bitmasks_list: Sequence[BitMasks]) -> BitMasks:
        return BitMasks(torch.cat([masks.tensor for masks in bitmasks_list]))

    def __getitem__(self, item) -> BitMasks:
        """Masks selected by an index (which gives a single one), a slice, an index vector or a bool vector."""
        return BitMasks(self.tensor[item][None] if isinstance(item, int) else self.tensor[item])

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield from self.tensor

    def __len__(self) -> int:
        return len(self.tensor)

    def __repr__(self) -> str:
        return f"BitMasks(num_instances={len(self)})"


def _extent(mask: torch.Tensor) -> list[float]:
    rows, columns = (mask.any(dim=axis).nonzero().flatten().tolist() for axis in (1, 0))
    return [columns[0], rows[0], columns[-1] + 1.0, rows[-1] + 1.0] if rows else [0.0] * 4


class PolygonMasks:
    """N masks as polygons (``.polygons``): for each object a list of float64 arrays x0, y0, x1, y1, ... in pixels.

    They stay in the memory of the CPU, so ``to`` changes nothing.
    """

    def __init__(self, polygons: list[list[torch.Tensor | np.ndarray | Sequence[float]]]):
        if not isinstance(polygons, list) or not all(isinstance(parts, list) for parts in polygons):
            raise ValueError("polygons need a list for every object, of its polygons' coordinates")
        self.polygons = [[np.asarray(part, np.float64) for part in parts] for parts in polygons]
        for part in itertools.chain(*self.polygons):
            if part.ndim != 1 or len(part) < 6 or len(part) % 2:
                raise ValueError(f"a polygon needs x and y of three points or more, got {part.size} numbers")

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def to(self, *args, **kwargs) -> PolygonMasks:
        return self

    def nonempty(self) -> torch.Tensor:
        """(N,) bool: the object has a polygon."""
        return torch.tensor([bool(parts) for parts in self.polygons], dtype=torch.bool)

    def area(self) -> torch.Tensor:
        """(N,) sum of the areas of each object's polygons."""
        return torch.tensor([sum(map(_area, parts)) for parts in self.polygons])

    def get_bounding_boxes(self) -> Boxes:
        """The smallest boxes around the objects, zeros for one without polygons."""
        extents = []
        for parts in self.polygons:
            points = np.concatenate(parts or [np.zeros(2)]).reshape(-1, 2)
            extents.append([*points.min(axis=0), *points.max(axis=0)])
        return Boxes(torch.tensor(np.array(extents, np.float32).reshape(-1, 4)))

    def crop_and_resize(self, boxes: torch.Tensor, mask_size: int) -> torch.Tensor:
        """(N, mask_size, mask_size) bool, on the boxes' device: what each object looks like in its box (N, 4)."""
        corners = boxes.detach().cpu().numpy()
        scales = mask_size / np.maximum(corners[:, 2:] - corners[:, :2], SMALLEST_SIDE)
        cropped = np.zeros((len(corners), mask_size, mask_size), bool)
        for mask, parts, corner, scale in zip(cropped, self.polygons, corners[:, :2], scales):
            moved = [((part.reshape(-1, 2) - corner) * scale).reshape(-1) for part in parts]
            mask[:] = polygons_to_bitmask(moved, mask_size, mask_size)
        return torch.from_numpy(cropped).to(boxes.device)

    @staticmethod
    def cat(polymasks_list: Sequence[PolygonMasks]) -> PolygonMasks:
        return PolygonMasks(list(itertools.chain(*(masks.polygons for masks in polymasks_list))))

    def __getitem__(self, item) -> PolygonMasks:
        """Objects selected by an index (which gives a single one), a slice, an index vector or a bool vector."""
        if isinstance(item, int):
            return PolygonMasks([self.polygons[item]])
        if isinstance(item, slice):
            return PolygonMasks(self.polygons[item])
        chosen = torch.as_tensor(item)
        rows = chosen.nonzero().flatten() if chosen.dtype == torch.bool else chosen
        return PolygonMasks([self.polygons[row] for row in rows.tolist()])

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        return iter(self.polygons)

    def __len__(self) -> int:
        return len(self.polygons)

    def __repr__(self) -> str:
        return f"PolygonMasks(num_instances={len(self)})"


def _area(polygon: np.ndarray) -> float:
    x, y = polygon[0::2], polygon[1::2]
    return 0.5 * abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))
