"""Deterministic changes of images and coordinates that fvcore does not have."""

from __future__ import annotations

import numpy as np
from fvcore.transforms.transform import Transform
from PIL import Image


class ResizeTransform(Transform):
    """Resizes uint8 images from (h, w) to (new_h, new_w), in pixels. ``interp`` is one of PIL's constants."""

    def __init__(self, h: int, w: int, new_h: int, new_w: int, interp: int = Image.BILINEAR) -> None:
        super().__init__()
        self.h, self.w, self.new_h, self.new_w, self.interp = h, w, new_h, new_w, interp

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """(h, w) or (h, w, 3) to (new_h, new_w[, 3])."""
        if img.shape[:2] != (self.h, self.w):
            raise AssertionError(f"this resizes images of {(self.h, self.w)}, not of {img.shape[:2]} pixels")
        return np.asarray(Image.fromarray(img).resize((self.new_w, self.new_h), self.interp))

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """(N, 2) points (x, y)."""
        return coords * np.asarray([self.new_w / self.w, self.new_h / self.h], dtype=coords.dtype)

    def inverse(self) -> ResizeTransform:
        return ResizeTransform(self.new_h, self.new_w, self.h, self.w, self.interp)
