from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


class ImageList:
    """A batch (N, C, H, W) of images of different sizes (``.tensor``), padded at the bottom and at the right.

    ``image_sizes`` holds the (height, width) of every image before padding.
    """

    def __init__(self, tensor: torch.Tensor, image_sizes: list[tuple[int, int]]):
        self.tensor = tensor
        self.image_sizes = image_sizes

    def __len__(self) -> int:
        return len(self.image_sizes)

    def __getitem__(self, index: int) -> torch.Tensor:
        """One image without its padding, (C, H, W)."""
        height, width = self.image_sizes[index]
        return self.tensor[index, ..., :height, :width]

    def to(self, *args: Any, **kwargs: Any) -> ImageList:
        return ImageList(self.tensor.to(*args, **kwargs), self.image_sizes)

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    @staticmethod
    def from_tensors(
        tensors: Sequence[torch.Tensor],
        size_divisibility: int = 0,
        pad_value: float = 0.0,
        padding_constraints: dict[str, int] | None = None,
    ) -> ImageList:
        """Batch images of shape (C, Hi, Wi), at least one.

        Args:
            size_divisibility: height and width of the batch become multiples of it, if above 1.
            pad_value: what the padding is filled with.
            padding_constraints: "square_size" is the height and width of the batch, if above 0; no image is larger.
        """
        sizes = [(image.shape[-2], image.shape[-1]) for image in tensors]
        square = (padding_constraints or {}).get("square_size", 0)
        target = [square, square] if square > 0 else [max(side) for side in zip(*sizes)]
        multiple = max(size_divisibility, 1)
        target = [-(-side // multiple) * multiple for side in target]
        batch = tensors[0].new_full((len(tensors), tensors[0].shape[0], *target), pad_value)
        for padded, image, (height, width) in zip(batch, tensors, sizes):
            padded[:, :height, :width] = image
        return ImageList(batch, sizes)
