"""From a frame to a model's input."""

from __future__ import annotations

import functools
import logging

import numpy as np
import torch
from detectron2.data import transforms as T

from ..errors import ConfigError

logger = logging.getLogger(__name__)


class InputPreparation:
    """Makes the model's input of a BGR image (H, W, 3): resized, in the model's channel order, (3, h, w) uint8."""

    def __init__(self, min_size: int, max_size: int, image_format: str) -> None:
        """
        Args:
            min_size: length in pixels to which the short edge is resized; 0 keeps the size, up to the limit.
            max_size: limit of the long edge in pixels.
            image_format: "RGB" or "BGR", the channel order that the model expects.

        Raises ConfigError, naming the key, for values that cannot be.
        """
        check_image_format(image_format)
        if min_size < 0 or max_size < 1:
            raise ConfigError(
                "INPUT.MIN_SIZE_TEST must be 0 or larger and INPUT.MAX_SIZE_TEST 1 or larger, "
                f"found {min_size} and {max_size}"
            )
        self._flip = image_format == "RGB"
        self._min_size, self._max_size = min_size, max_size

    def __call__(self, image: np.ndarray) -> torch.Tensor:
        if self._min_size or max(image.shape[:2]) > self._max_size:
            if not self._min_size:
                say_shrunk(*image.shape[:2], self._max_size)
            resize = T.ResizeShortestEdge(self._min_size or min(image.shape[:2]), self._max_size)
            image = resize.get_transform(image).apply_image(image)
        if self._flip:
            image = image[:, :, ::-1]
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


@functools.cache
def say_shrunk(height: int, width: int, limit: int) -> None:
    """Log, once for each size, that the model sees less than the frame has."""
    logger.warning(
        "frames of %d x %d pixels are shrunk to a long edge of %d for the model; INPUT.MAX_SIZE_TEST is that limit",
        *(width, height, limit),
    )


def check_image_format(image_format: str) -> None:
    """Raise ConfigError unless `image_format` (INPUT.FORMAT) is "RGB" or "BGR"."""
    if image_format not in ("RGB", "BGR"):
        raise ConfigError(f"INPUT.FORMAT must be 'RGB' or 'BGR', found {image_format!r}")
