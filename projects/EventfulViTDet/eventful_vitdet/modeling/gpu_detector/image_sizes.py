"""Sizes of images where a recorded frame can read them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageSizes:
    """Sizes of the images of a frame as numbers on the device, (B, 1, 4) each."""

    limits: Tensor
    """Width, height, width and height without padding."""
    scales: Tensor
    """From these to the size before resizing."""
    output_limits: Tensor
    """The size before resizing."""

    def clip(self, boxes: Tensor) -> Tensor:
        """Boxes (B, R, 4) within the images."""
        return torch.minimum(boxes.clamp(min=0), self.limits)

    def place(self, boxes: Tensor) -> Tensor:
        """The same in the images before resizing."""
        return torch.minimum((boxes * self.scales).clamp(min=0), self.output_limits)
