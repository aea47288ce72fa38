"""The augmentations of detectors. Images are (H, W, C); random numbers come from numpy's global generator."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from fvcore.transforms.transform import (
    BlendTransform,
    HFlipTransform,
    NoOpTransform,
    Transform,
    VFlipTransform,
)
from PIL import Image

from .augmentation import Augmentation
from .transform import ResizeTransform


class RandomFlip(Augmentation):
    """Flips with probability ``prob``, horizontally or (not and) vertically."""

    def __init__(self, prob: float = 0.5, *, horizontal: bool = True, vertical: bool = False) -> None:
        if horizontal == vertical:
            raise ValueError("RandomFlip is either horizontal or vertical; use two for both")
        self.prob, self.horizontal = prob, horizontal

    def get_transform(self, image: np.ndarray) -> Transform:
        if np.random.uniform() >= self.prob:
            return NoOpTransform()
        return HFlipTransform(image.shape[1]) if self.horizontal else VFlipTransform(image.shape[0])


class ResizeShortestEdge(Augmentation):
    """Scales the short edge to a random length of ``short_edge_length`` (one of them, or with "range" between
    the two), but never the long edge beyond ``max_size``. A length of 0 leaves the image as it is."""

    def __init__(
        self,
        short_edge_length: int | Sequence[int],
        max_size: int = sys.maxsize,
        sample_style: str = "range",
        interp: int = Image.BILINEAR,
    ) -> None:
        if sample_style not in ("range", "choice"):
            raise AssertionError(f"sample_style is '{sample_style}'; known: range, choice")
        if isinstance(short_edge_length, int):
            short_edge_length = (short_edge_length, short_edge_length)
        self.short_edge_length, self.max_size = short_edge_length, max_size
        self.is_range, self.interp = sample_style == "range", interp

    def get_transform(self, image: np.ndarray) -> Transform:
        if self.is_range:
            low, high = self.short_edge_length
            size = np.random.randint(low, high + 1)
        else:
            size = np.random.choice(self.short_edge_length)
        if size == 0:
            return NoOpTransform()
        height, width = image.shape[:2]
        new_height, new_width = self.get_output_shape(height, width, size, self.max_size)
        return ResizeTransform(height, width, new_height, new_width, self.interp)

    @staticmethod
    def get_output_shape(oldh: int, oldw: int, short_edge_length: int, max_size: int) -> tuple[int, int]:
        """(height, width) after resizing, rounded half up."""
        scale = short_edge_length / min(oldh, oldw)
        new = [scale * oldh, scale * oldw]
        new[oldh >= oldw] = float(short_edge_length)  # the product may be off by a rounding error
        if max(new) > max_size:
            shrink = max_size / max(new)
            new = [edge * shrink for edge in new]
        return int(new[0] + 0.5), int(new[1] + 0.5)


class _RandomBlend(Augmentation):
    """``w * image + (1 - w) * other`` with w uniform in (intensity_min, intensity_max); 1 changes nothing."""

    def __init__(self, intensity_min: float, intensity_max: float) -> None:
        self.intensity_min, self.intensity_max = intensity_min, intensity_max

    def get_transform(self, image: np.ndarray) -> Transform:
        weight = np.random.uniform(self.intensity_min, self.intensity_max)
        return BlendTransform(src_image=self._other(image), src_weight=1 - weight, dst_weight=weight)

    def _other(self, image: np.ndarray) -> float:
        raise NotImplementedError


class RandomBrightness(_RandomBlend):
    """Blends with black."""

    def _other(self, image: np.ndarray) -> float:
        return 0.0


class RandomContrast(_RandomBlend):
    """Blends with the image's mean."""

    def _other(self, image: np.ndarray) -> float:
        return image.mean()
