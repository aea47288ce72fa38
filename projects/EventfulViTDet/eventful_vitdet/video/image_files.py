"""Image files: reading them, all pages of them, with their defects noticed, and encoding frames. Images are BGR uint8,
(H, W, 3)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from ..errors import VideoReadError, VideoWriteError

UNBOUNDED_MODES = ("I", "F")
"""Pillow's types of pixels without a fixed range, which its conversion to 8 bits would cut off at white."""
STACKS = frozenset({"AVIF", "GIF", "PNG", "TIFF", "WEBP"})
"""Formats of several pictures that belong together. (The second one in a phone's JPEG is a preview or a map.)"""
NO_IMAGES = frozenset({"MPEG"})
"""What Pillow recognises and cannot read."""
TIFF_KIND, TIFF_REDUCED = 254, 1
"""The tag that tells whether a page is a smaller copy of another one."""


class Page(NamedTuple):
    """A page of an image file, and how many seconds it is shown, None where the file does not say."""

    image: np.ndarray
    duration: float | None


def read_image_file(path: str, *, upright: bool = True) -> np.ndarray:
    """Read an image file, its first page, as BGR (H, W, 3). Raises VideoReadError if it is absent, damaged or cut off.

    Its EXIF orientation is applied, or with `upright=False` ignored.
    """
    with _open(path) as image:
        return _to_array(path, image, upright)


def read_pages(path: str) -> Iterator[Page]:
    """Yield the pages of an image file in order; most have one. Raises VideoReadError, also after some of them."""
    with _open(path) as image:
        pages = _page_numbers(image)
    with _open(path) as image:
        for number in pages:
            with _errors_named(path):
                image.seek(number)
                array = _to_array(path, image, True)
            duration = image.info.get("duration")
            yield Page(array, duration / 1000 if isinstance(duration, (int, float)) and duration > 0 else None)


def count_pages(path: str) -> int | None:
    """The number of pages of an image file; None if it is no image."""
    try:
        with Image.open(path) as image:
            if image.format in NO_IMAGES or isinstance(image, ImageFile.StubImageFile):
                return None
            return len(_page_numbers(image))
    except Image.DecompressionBombError:
        return 1  # an image, too large to be read
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return None


def has_image_suffix(path: str) -> bool:
    """Whether a name is one that Pillow knows for images that it can read."""
    kind = Image.registered_extensions().get(os.path.splitext(path)[1].lower())
    return kind in Image.OPEN and kind not in NO_IMAGES


def _page_numbers(image: Image.Image) -> list[int]:
    count = getattr(image, "n_frames", 1) if image.format in STACKS else 1
    if image.format != "TIFF" or count == 1:
        # A PNG may begin with a picture for those that cannot show its animation.
        stand_in = count > 1 and getattr(image, "default_image", False)
        return list(range(int(stand_in), count))
    numbers = []
    for number in range(count):
        image.seek(number)
        if not image.tag_v2.get(TIFF_KIND, 0) & TIFF_REDUCED:
            numbers.append(number)
    return numbers or [0]


@contextmanager
def _open(path: str) -> Iterator[Image.Image]:
    with _errors_named(path):
        image = Image.open(path)
    with image:
        yield image


@contextmanager
def _errors_named(path: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise VideoReadError(f"{path}: the file does not exist") from error
    except (UnidentifiedImageError, Image.DecompressionBombError, EOFError, OSError, SyntaxError, ValueError) as error:
        raise VideoReadError(f"{path}: cannot be read as an image ({error})") from error


def _to_array(path: str, image: Image.Image, upright: bool) -> np.ndarray:
    # Pillow rather than cv2.imread: the latter fills the missing part of a truncated JPEG with grey and says nothing.
    if image.mode in UNBOUNDED_MODES or image.mode.startswith("I;16"):
        raise VideoReadError(f"{path}: has pixels of type {image.mode}; expected 8 bits per channel")
    with _errors_named(path):
        rgb = np.asarray((ImageOps.exif_transpose(image) if upright else image).convert("RGB"))
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
