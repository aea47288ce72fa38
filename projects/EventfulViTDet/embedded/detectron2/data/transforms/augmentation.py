"""Augmentations: rules, often random, that look at an input and choose the transform for it."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from fvcore.transforms.transform import Transform, TransformList


class AugInput:
    """What augmentations see and change: ``image``, uint8 (H, W, C), and ``boxes``, (N, 4) as x0, y0, x1, y1
    in pixels, or None."""

    def __init__(self, image: np.ndarray, *, boxes: np.ndarray | None = None) -> None:
        self.image = image
        self.boxes = boxes

    def transform(self, tfm: Transform) -> None:
        """Apply ``tfm`` to everything here."""
        self.image = tfm.apply_image(self.image)
        if self.boxes is not None:
            self.boxes = tfm.apply_box(self.boxes)


class Augmentation:
    """Base class. A subclass defines ``get_transform(self, image)``; with several parameters each is filled
    with the attribute of that name of the input, e.g. ``get_transform(self, image, boxes)``."""

    def get_transform(self, *args: Any) -> Transform:
        raise NotImplementedError

    def __call__(self, aug_input: AugInput) -> Transform:
        """Choose a transform, change ``aug_input`` by it in place, and return it."""
        names = inspect.signature(self.get_transform).parameters
        arguments = [getattr(aug_input, name) for name in names] if len(names) > 1 else [aug_input.image]
        transform = self.get_transform(*arguments)
        aug_input.transform(transform)
        return transform


class AugmentationList(Augmentation):
    """Augmentations (or fixed transforms) one after the other; each sees what those before it left."""

    def __init__(self, augs: list[Augmentation | Transform]) -> None:
        self.augs = augs

    def __call__(self, aug_input: AugInput) -> TransformList:
        applied = []
        for aug in self.augs:
            if isinstance(aug, Transform):
                aug_input.transform(aug)
            applied.append(aug if isinstance(aug, Transform) else aug(aug_input))
        return TransformList(applied)
