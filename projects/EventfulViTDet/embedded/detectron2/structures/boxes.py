from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Union

import numpy as np
import torch
from torchvision.ops import box_area, box_iou

RawBoxes = Union[list, tuple, torch.Tensor, np.ndarray]


class BoxMode(IntEnum):
    """What the four numbers of a box are; in pixels, but for the relative modes, which nothing converts.

    XYWHA_ABS is that of rotated boxes, which this part of Detectron2 does not have.
    """

    XYXY_ABS = 0  # left, top, right, bottom
    XYWH_ABS = 1  # left, top, width, height
    XYXY_REL = 2
    XYWH_REL = 3
    XYWHA_ABS = 4  # centre, width, height, angle

    @staticmethod
    def convert(box: RawBoxes, from_mode: BoxMode, to_mode: BoxMode) -> RawBoxes:
        """One box, as a list or tuple of 4 numbers, or N boxes (N, 4), as a tensor or array, in another mode.

        The result is of the type of `box`, which stays as it is. ValueError if a box has not 4 numbers,
        NotImplementedError for modes other than XYXY_ABS and XYWH_ABS.
        """
        if from_mode == to_mode:
            return box
        if not {from_mode, to_mode} <= {BoxMode.XYXY_ABS, BoxMode.XYWH_ABS}:
            names = f"{BoxMode(from_mode).name} to {BoxMode(to_mode).name}"
            raise NotImplementedError(f"boxes are not converted from {names}, only between XYXY_ABS and XYWH_ABS")
        count = len(box) if isinstance(box, (list, tuple)) else box.shape[-1]
        if count != 4:
            raise ValueError(f"a box has 4 numbers, got {count}: {box}")
        sign = 1 if to_mode == BoxMode.XYXY_ABS else -1
        if isinstance(box, (list, tuple)):
            x, y, a, b = box
            return type(box)((x, y, a + sign * x, b + sign * y))
        converted = box.clone() if isinstance(box, torch.Tensor) else box.copy()
        converted[..., 2:] += sign * converted[..., :2]
        return converted


class Boxes:
    """N boxes as an (N, 4) float32 tensor of left, top, right, bottom in pixels (``.tensor``)."""

    def __init__(self, tensor: torch.Tensor):
        tensor = torch.as_tensor(tensor).to(torch.float32)
        if tensor.numel() == 0:
            tensor = tensor.reshape(0, 4)
        if tensor.dim() != 2 or tensor.shape[1] != 4:
            raise ValueError(f"boxes need shape (N, 4), got {tuple(tensor.shape)}")
        self.tensor = tensor

    def clone(self) -> Boxes:
        return Boxes(self.tensor.clone())

    def to(self, device: torch.device) -> Boxes:
        return Boxes(self.tensor.to(device=device))

    def clip(self, box_size: tuple[int, int]) -> None:
        """Move the corners into ``box_size`` = (height, width)."""
        height, width = box_size
        x, y = self.tensor[:, 0::2].clamp(0, width), self.tensor[:, 1::2].clamp(0, height)
        self.tensor = torch.stack((x, y), dim=2).flatten(1)

    def nonempty(self, threshold: float = 0.0) -> torch.Tensor:
        """(N,) bool: both sides are longer than this."""
        return (self.tensor[:, 2:] - self.tensor[:, :2] > threshold).all(dim=1)

    def area(self) -> torch.Tensor:
        """(N,) square pixels."""
        return box_area(self.tensor)

    def get_centers(self) -> torch.Tensor:
        """(N, 2) x and y of the centres."""
        return (self.tensor[:, :2] + self.tensor[:, 2:]) / 2

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: int = 0) -> torch.Tensor:
        """(N,) bool: the box lies in ``box_size`` = (height, width), or reaches less than the threshold over it."""
        height, width = box_size
        low = (self.tensor[:, :2] >= -boundary_threshold).all(dim=1)
        limits = self.tensor.new_tensor((width + boundary_threshold, height + boundary_threshold))
        return low & (self.tensor[:, 2:] < limits).all(dim=1)

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Multiply the coordinates, in place."""
        self.tensor[:, 0::2] *= scale_x
        self.tensor[:, 1::2] *= scale_y

    @classmethod
    def cat(cls, boxes_list: Sequence[Boxes]) -> Boxes:
        return cls(torch.cat([boxes.tensor for boxes in boxes_list])) if boxes_list else cls(torch.empty(0, 4))

    def __getitem__(self, item) -> Boxes:
        """Boxes selected by an index (which gives a single one), a slice, an index vector or a bool vector."""
        return Boxes(self.tensor[item].reshape(1, 4) if isinstance(item, int) else self.tensor[item])

    def __iter__(self) -> Iterator[torch.Tensor]:
        """The boxes as vectors of four."""
        yield from self.tensor

    def __len__(self) -> int:
        return len(self.tensor)

    def __repr__(self) -> str:
        return f"Boxes({self.tensor})"


def pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> torch.Tensor:
    """(N, M) intersection over union."""
    return box_iou(boxes1.tensor, boxes2.tensor)


def pairwise_intersection(boxes1: Boxes, boxes2: Boxes) -> torch.Tensor:
    """(N, M) common area in square pixels."""
    low = torch.maximum(boxes1.tensor[:, None, :2], boxes2.tensor[:, :2])
    high = torch.minimum(boxes1.tensor[:, None, 2:], boxes2.tensor[:, 2:])
    return (high - low).clamp(min=0).prod(dim=2)


def pairwise_ioa(boxes1: Boxes, boxes2: Boxes) -> torch.Tensor:
    """(N, M) common area as a share of that of the second box; 0 where there is none."""
    common = pairwise_intersection(boxes1, boxes2)
    return torch.where(common > 0, common / boxes2.area(), torch.zeros_like(common))
