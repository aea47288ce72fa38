from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum

import numpy as np
import torch


class BoxMode(IntEnum):
    """What the four numbers of a box are, in pixels."""

    XYXY_ABS = 0  # left, top, right, bottom
    XYWH_ABS = 1  # left, top, width, height

    @staticmethod
    def convert(box, from_mode: BoxMode, to_mode: BoxMode):
        """One box (list or tuple of 4) or an (N, 4) array or tensor in another mode; its type stays."""
        if from_mode == to_mode:
            return box
        is_sequence = isinstance(box, (list, tuple))
        rows = torch.tensor(box, dtype=torch.float64) if is_sequence else box
        if rows.shape[-1] != 4:
            raise ValueError(f"a box has 4 numbers, got {rows.shape[-1]}: {box}")
        if (from_mode, to_mode) == (BoxMode.XYWH_ABS, BoxMode.XYXY_ABS):
            far = rows[..., 2:] + rows[..., :2]
        elif (from_mode, to_mode) == (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS):
            far = rows[..., 2:] - rows[..., :2]
        else:
            raise ValueError(f"no conversion from box mode {from_mode!r} to {to_mode!r}")
        if isinstance(rows, np.ndarray):
            return np.concatenate((rows[..., :2], far), axis=-1)
        rows = torch.cat((rows[..., :2], far), dim=-1)
        return type(box)(rows.tolist()) if is_sequence else rows


class Boxes:
    """N boxes as an (N, 4) float32 tensor of left, top, right, bottom in pixels (``.tensor``)."""

    def __init__(self, tensor: torch.Tensor):
        tensor = torch.as_tensor(tensor).to(torch.float32)
        if tensor.numel() == 0:
            tensor = tensor.reshape(0, 4)
        if tensor.dim() != 2 or tensor.shape[1] != 4:
            raise ValueError(f"boxes need shape (N, 4), got {tuple(tensor.shape)}")
        self.tensor = tensor

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def clone(self) -> Boxes:
        return Boxes(self.tensor.clone())

    def to(self, device: torch.device) -> Boxes:
        return Boxes(self.tensor.to(device=device))

    def area(self) -> torch.Tensor:
        """(N,) areas in square pixels."""
        return (self.tensor[:, 2:] - self.tensor[:, :2]).prod(dim=1)

    def clip(self, box_size: tuple[int, int]) -> None:
        """Move the corners into ``box_size`` = (height, width); ValueError if one is infinite or NaN."""
        if not torch.isfinite(self.tensor).all():
            raise ValueError("cannot clip boxes that contain infinite or NaN coordinates")
        height, width = box_size
        x, y = self.tensor[:, 0::2].clamp(0, width), self.tensor[:, 1::2].clamp(0, height)
        self.tensor = torch.stack((x, y), dim=2).flatten(1)

    def nonempty(self, threshold: float = 0.0) -> torch.Tensor:
        """(N,) bool: both sides are longer than ``threshold`` pixels."""
        return (self.tensor[:, 2:] - self.tensor[:, :2] > threshold).all(dim=1)

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: float = 0) -> torch.Tensor:
        """(N,) bool: no side lies more than ``boundary_threshold`` pixels outside of (height, width)."""
        far = self.tensor.new_tensor(box_size[::-1]) + boundary_threshold
        return ((self.tensor[:, :2] >= -boundary_threshold) & (self.tensor[:, 2:] < far)).all(dim=1)

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Multiply the coordinates, in place."""
        self.tensor[:, 0::2] *= scale_x
        self.tensor[:, 1::2] *= scale_y

    @classmethod
    def cat(cls, boxes_list: Sequence[Boxes]) -> Boxes:
        return cls(torch.cat([boxes.tensor for boxes in boxes_list]) if boxes_list else torch.empty(0))

    def __getitem__(self, item) -> Boxes:
        """Boxes selected by an int, a slice, an index vector or a bool vector."""
        return Boxes(self.tensor[item][None] if isinstance(item, int) else self.tensor[item])

    def __len__(self) -> int:
        return len(self.tensor)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self.tensor)

    def __repr__(self) -> str:
        return f"Boxes({self.tensor})"


def pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> torch.Tensor:
    """(N, M) intersection over union of every pair; 0 for boxes that do not meet, even if both are empty."""
    left1, top1, right1, bottom1 = boxes1.tensor[:, :, None].unbind(1)  # (N, 1) each
    left2, top2, right2, bottom2 = boxes2.tensor.unbind(1)  # (M,) each
    width = (torch.min(right1, right2) - torch.max(left1, left2)).clamp_(min=0)
    height = (torch.min(bottom1, bottom2) - torch.max(top1, top2)).clamp_(min=0)
    intersection = width * height
    union = boxes1.area()[:, None] + boxes2.area() - intersection
    return torch.where(intersection > 0, intersection / union, 0.0)
