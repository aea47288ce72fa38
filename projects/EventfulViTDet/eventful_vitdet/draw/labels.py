"""Text on a picture, on a ground of its own, in a size that suits the picture. Images are BGR uint8 (H, W, 3)."""

from __future__ import annotations

import cv2
import numpy as np

FONT = cv2.FONT_HERSHEY_SIMPLEX
LABEL_MARGIN = 2  # pixels
DARK = (32, 32, 32)


def draw_caption(image: np.ndarray, text: str) -> np.ndarray:
    """Return a copy of the image with a line of text on a dark ground in its upper left corner."""
    canvas = image.copy()
    draw_label(canvas, text, (0, 0), DARK, text_scale(image))
    return canvas


def text_scale(image: np.ndarray) -> float:
    """Size of letters, for OpenCV, that suits an image of this size."""
    return max(0.4, min(image.shape[:2]) / 1100)


def label_size(text: str, scale: float) -> tuple[int, int]:
    """Width and height in pixels of a label with this text."""
    (width, height), baseline = cv2.getTextSize(text, FONT, scale, _weight(scale))
    return width + 2 * LABEL_MARGIN, height + baseline + LABEL_MARGIN


def draw_label(
    canvas: np.ndarray, text: str, corner: tuple[int, int], color: tuple[int, int, int], scale: float
) -> None:
    """Write text on a filled ground whose upper left corner is at `corner` (x, y); in place."""
    width, height = label_size(text, scale)
    baseline = cv2.getTextSize(text, FONT, scale, _weight(scale))[1]
    x, y = corner[0], corner[1] + height
    cv2.rectangle(canvas, (x, y - height), (x + width, y), color, cv2.FILLED)
    place = (x + LABEL_MARGIN, y - baseline // 2 - LABEL_MARGIN)
    cv2.putText(canvas, text, place, FONT, scale, ink_on(color), _weight(scale), cv2.LINE_AA)


def ink_on(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever reads better on a colour (BGR)."""
    blue, green, red = color
    return (0, 0, 0) if 0.114 * blue + 0.587 * green + 0.299 * red > 110 else (255, 255, 255)


def _weight(scale: float) -> int:
    return max(1, round(scale))
