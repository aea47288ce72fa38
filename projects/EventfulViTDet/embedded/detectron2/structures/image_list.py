from __future__ import annotations

from collections.abc import Sequence

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

    @staticmethod
    def from_tensors(
        tensors: Sequence[torch.Tensor],
        size_divisibility: int = 0,
        pad_value: float = 0.0,
        padding_constraints: dict[str, int] | None = None,
    ) -> ImageList:
        """Batch images of shape (C, Hi, Wi).

        Args:
            size_divisibility: height and width of the batch become multiples of it, if above 1.
            padding_constraints: may hold "square_size" (height and width of the batch, if above 0) and
                "size_divisibility" (in place of the argument).

        Raises:
            ValueError: there is no image, or one is larger than the square.
        """
        if len(tensors) == 0:
            raise ValueError("cannot make a batch of no images")
        constraints = padding_constraints or {}
        sizes = [(image.shape[-2], image.shape[-1]) for image in tensors]
        target = [max(side) for side in zip(*sizes)]
        square = constraints.get("square_size", 0)
        if square > 0:
            if max(target) > square:
                raise ValueError(
                    f"images of up to {target[0]} x {target[1]} pixels (height x width, after resizing) exceed "
                    f"the {square} x {square} that the backbone pads to: lower INPUT.MAX_SIZE_TRAIN and "
                    "INPUT.MAX_SIZE_TEST, or raise the backbone's square padding"
                )
            target = [square, square]
        multiple = max(constraints.get("size_divisibility", size_divisibility), 1)
        target = [-(-side // multiple) * multiple for side in target]

        batch = tensors[0].new_full((len(tensors), *tensors[0].shape[:-2], *target), pad_value)
        for padded, image, (height, width) in zip(batch, tensors, sizes):
            padded[..., :height, :width] = image
        return ImageList(batch, sizes)
