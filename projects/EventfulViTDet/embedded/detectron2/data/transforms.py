"""Augmentations: rules, often random, that look at an input and choose the transform for it.

Images are uint8 (H, W, C), boxes (N, 4) as x0, y0, x1, y1 in pixels; random numbers come from numpy's global generator.
"""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from fvcore.transforms.transform import (
    BlendTransform,
    HFlipTransform,
    NoOpTransform,
    Transform,
    TransformList,
    VFlipTransform,
)
from PIL import Image


class AugInput:
    """What augmentations see and change: ``image``, and ``boxes`` or None."""

    def __init__(self, image: np.ndarray, *, boxes: np.ndarray | None = None) -> None:
        self.image = image
        self.boxes = boxes

    def transform(self, tfm: Transform) -> None:
        """Apply ``tfm`` to everything here."""
        self.image = tfm.apply_image(self.image)
        if self.boxes is not None:
            self.boxes = tfm.apply_box(self.boxes)


class Augmentation:
    """Base class. The parameters of ``get_transform`` are attributes of the input: ``image``, or also ``boxes``."""

    def get_transform(self, *args: Any) -> Transform:
        raise NotImplementedError

    def __call__(self, aug_input: AugInput) -> Transform:
        """Choose a transform, change ``aug_input`` by it in place, and return it."""
        names = inspect.signature(self.get_transform).parameters
        transform = self.get_transform(*(getattr(aug_input, name) for name in names))
        aug_input.transform(transform)
        return transform


class AugmentationList(Augmentation):
    """Augmentations one after the other; each sees what those before it left."""

    def __init__(self, augs: list[Augmentation]) -> None:
        self.augs = augs

    def __call__(self, aug_input: AugInput) -> TransformList:
        return TransformList([aug(aug_input) for aug in self.augs])


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


class ResizeShortestEdge(Augmentation):
    """Scales the short edge to a length in pixels, but never the long edge beyond ``max_size``."""

    def __init__(self, short_edge_length: int, max_size: int) -> None:
        self.short_edge_length, self.max_size = short_edge_length, max_size

    def get_transform(self, image: np.ndarray) -> Transform:
        height, width = image.shape[:2]
        return ResizeTransform(height, width, *self._output_shape(height, width))

    def _output_shape(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after resizing, rounded half up."""
        scale = self.short_edge_length / min(height, width)
        new = [scale * height, scale * width]
        new[height >= width] = float(self.short_edge_length)  # the product may be off by a rounding error
        if max(new) > self.max_size:
            shrink = self.max_size / max(new)
            new = [edge * shrink for edge in new]
        return int(new[0] + 0.5), int(new[1] + 0.5)


class ResizeTransform(Transform):
    """Resizes images and boxes from (h, w) to (new_h, new_w), in pixels."""

    def __init__(self, h: int, w: int, new_h: int, new_w: int) -> None:
        super().__init__()
        self.h, self.w, self.new_h, self.new_w = h, w, new_h, new_w

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(img).resize((self.new_w, self.new_h), Image.BILINEAR))

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """(N, 2) points (x, y)."""
        return coords * np.asarray([self.new_w / self.w, self.new_h / self.h], dtype=coords.dtype)
