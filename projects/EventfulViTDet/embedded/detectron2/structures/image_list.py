from __future__ import annotations

from collections.abc import Sequence

import torch


class ImageList:
    """A batch (N, C, H, W) of images of different sizes (``.tensor``), padded with 0 at the bottom and at the right.

    ``image_sizes`` holds the (height, width) of every image before padding.
    """

    def __init__(self, tensor: torch.Tensor, image_sizes: list[tuple[int, int]]):
        self.tensor = tensor
        self.image_sizes = image_sizes

    @staticmethod
    def from_tensors(
        tensors: Sequence[torch.Tensor],
        size_divisibility: int = 0,
        *,
        padding_constraints: dict[str, int] | None = None,
    ) -> ImageList:
        """Batch images of shape (C, Hi, Wi), at least one.

        Args:
            size_divisibility: height and width of the batch become multiples of it, if above 1.
            padding_constraints: "square_size" is the height and width of the batch, if above 0; no image is larger.
        """
        sizes = [(image.shape[-2], image.shape[-1]) for image in tensors]
        square = (padding_constraints or {}).get("square_size", 0)
        target = [square, square] if square > 0 else [max(side) for side in zip(*sizes)]
        multiple = max(size_divisibility, 1)
        target = [-(-side // multiple) * multiple for side in target]
        batch = tensors[0].new_zeros((len(tensors), tensors[0].shape[0], *target))
        for padded, image, (height, width) in zip(batch, tensors, sizes):
            padded[:, :height, :width] = image
        return ImageList(batch, sizes)
