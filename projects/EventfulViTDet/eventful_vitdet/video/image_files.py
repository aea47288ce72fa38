"""Image files: reading them with their defects noticed, and encoding frames. Images are BGR uint8, (H, W, 3)."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import VideoReadError, VideoWriteError

UNBOUNDED_MODES = ("I", "F")
"""Pillow's types of pixels without a fixed range, which its conversion to 8 bits would cut off at white."""


def read_image_file(path: str, *, upright: bool = True) -> np.ndarray:
    """Read an image file as BGR (H, W, 3). Raises VideoReadError if it is absent, damaged or cut short.

    Its EXIF orientation is applied, or with `upright=False` ignored.
    """
    # Pillow rather than cv2.imread: the latter fills the missing part of a truncated JPEG with grey and says
    # nothing.
    try:
        with Image.open(path) as image:
            if image.mode in UNBOUNDED_MODES or image.mode.startswith("I;16"):
                raise VideoReadError(f"{path}: has pixels of type {image.mode}; expected 8 bits per channel")
            rgb = np.asarray((ImageOps.exif_transpose(image) if upright else image).convert("RGB"))
    except FileNotFoundError as error:
        raise VideoReadError(f"{path}: the file does not exist") from error
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise VideoReadError(f"{path}: cannot be read as an image ({error})") from error
    return np.ascontiguousarray(rgb[:, :, ::-1])


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """The content of a JPEG file; quality from 0 to 100."""
    return _encode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])


def encode_png(image: np.ndarray) -> bytes:
    """The content of a PNG file."""
    return _encode(".png", image, [])


def _encode(suffix: str, image: np.ndarray, options: list[int]) -> bytes:
    encoded, data = cv2.imencode(suffix, image, options)
    if not encoded:
        raise VideoWriteError(f"this OpenCV cannot encode {suffix} pictures")
    return data.tobytes()
