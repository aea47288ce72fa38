from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import torch


class BoxMode(IntEnum):
    """What the four numbers of a box are, in pixels."""

    XYXY_ABS = 0  # left, top, right, bottom
    XYWH_ABS = 1  # left, top, width, height

    @staticmethod
    def convert(box: Sequence[float], from_mode: BoxMode, to_mode: BoxMode) -> Sequence[float]:
        """One box in another mode; ValueError if it has not 4 numbers."""
        if from_mode == to_mode:
            return box
        if len(box) != 4:
            raise ValueError(f"a box has 4 numbers, got {len(box)}: {box}")
        x, y, a, b = box
        return [x, y, x + a, y + b] if to_mode == BoxMode.XYXY_ABS else [x, y, a - x, b - y]


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

    def nonempty(self) -> torch.Tensor:
        """(N,) bool: both sides are longer than 0."""
        return (self.tensor[:, 2:] > self.tensor[:, :2]).all(dim=1)

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Multiply the coordinates, in place."""
        self.tensor[:, 0::2] *= scale_x
        self.tensor[:, 1::2] *= scale_y

    @classmethod
    def cat(cls, boxes_list: Sequence[Boxes]) -> Boxes:
        return cls(torch.cat([boxes.tensor for boxes in boxes_list]))

    def __getitem__(self, item) -> Boxes:
        """Boxes selected by a slice, an index vector or a bool vector."""
        return Boxes(self.tensor[item])

    def __len__(self) -> int:
        return len(self.tensor)

    def __repr__(self) -> str:
        return f"Boxes({self.tensor})"
