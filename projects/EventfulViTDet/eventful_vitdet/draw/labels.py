"""Text on a picture, on a ground of its own, in a size that suits the picture. Images are BGR uint8 (H, W, 3)."""

from __future__ import annotations

import cv2
import numpy as np

FONT = cv2.FONT_HERSHEY_SIMPLEX
LABEL_MARGIN = 2  # pixels


def draw_caption(image: np.ndarray, text: str) -> np.ndarray:
    """Return a copy of the image with a line of text on a dark ground in its upper left corner."""
    canvas = image.copy()
    draw_label(canvas, text, (0, 0), (32, 32, 32))
    return canvas


def text_scale(image: np.ndarray) -> float:
    """Size of letters, for OpenCV, that suits an image of this size."""
    return max(0.4, min(image.shape[:2]) / 1100)


def draw_label(canvas: np.ndarray, text: str, corner: tuple[int, int], color: tuple[int, int, int]) -> None:
    """Write text on a filled ground above `corner` (x, y), or inside the image where there is no room; in place."""
    scale = text_scale(canvas)
    weight = max(1, round(scale))
    (width, height), baseline = cv2.getTextSize(text, FONT, scale, weight)
    width, height = width + 2 * LABEL_MARGIN, height + baseline + LABEL_MARGIN
    x = max(0, min(corner[0], canvas.shape[1] - width))
    y = max(corner[1], height)
    cv2.rectangle(canvas, (x, y - height), (x + width, y), color, cv2.FILLED)
    place = (x + LABEL_MARGIN, y - baseline // 2 - LABEL_MARGIN)
    cv2.putText(canvas, text, place, FONT, scale, ink_on(color), weight, cv2.LINE_AA)


def ink_on(color: tuple[int, int, int]) -> tuple[int, int, int]:
    """Black or white, whichever reads better on a colour (BGR)."""
    blue, green, red = color
    return (0, 0, 0) if 0.114 * blue + 0.587 * green + 0.299 * red > 110 else (255, 255, 255)
