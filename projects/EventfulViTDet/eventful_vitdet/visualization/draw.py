"""Drawing detections on frames with OpenCV. Images are BGR uint8 (H, W, 3)."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

from ..evaluation import Detections

GOLDEN_RATIO = 0.618034
FONT = cv2.FONT_HERSHEY_SIMPLEX
STRIP_HEIGHT = 24  # pixels


def class_color(index: int) -> tuple[int, int, int]:
    """A bright colour (BGR) for a class; always the same for the same index, far apart for neighbours."""
    red, green, blue = colorsys.hsv_to_rgb((index * GOLDEN_RATIO) % 1.0, 0.85, 1.0)
    return round(255 * blue), round(255 * green), round(255 * red)


def draw_detections(
    image: np.ndarray, detections: Detections, classes: Sequence[str], min_score: float = 0.3
) -> np.ndarray:
    """
    Returns a copy of the image with a box, class name and score for every detection of at least `min_score`.
    """
    canvas = image.copy()
    for box, score, index in zip(detections.boxes, detections.scores, detections.classes):
        if score < min_score:
            continue
        x0, y0, x1, y1 = (round(float(value)) for value in box)
        color = class_color(int(index))
        cv2.rectangle(canvas, (x0, y0), (x1, y1), color, 2)
        _draw_label(canvas, f"{classes[int(index)]} {score:.2f}", (x0, y0), color)
    return canvas


def add_strip(image: np.ndarray, text: str) -> np.ndarray:
    """Return the image with a dark strip below it that holds a line of text, shrunk to fit the width."""
    strip = np.full((STRIP_HEIGHT, image.shape[1], 3), 32, np.uint8)
    scale = 0.45
    (width, _), _ = cv2.getTextSize(text, FONT, scale, 1)
    scale *= min(1.0, (image.shape[1] - 12) / max(1, width))
    cv2.putText(strip, text, (6, STRIP_HEIGHT - 8), FONT, scale, (235, 235, 235), 1, cv2.LINE_AA)
    return np.concatenate([image, strip])


def _draw_label(canvas: np.ndarray, text: str, corner: tuple[int, int], color: tuple[int, int, int]) -> None:
    """Write text on a filled background above `corner`, or inside the image where there is no room above."""
    (width, height), baseline = cv2.getTextSize(text, FONT, 0.4, 1)
    x = max(0, min(corner[0], canvas.shape[1] - width))
    y = max(corner[1], height + baseline)
    cv2.rectangle(canvas, (x, y - height - baseline), (x + width, y), color, cv2.FILLED)
    cv2.putText(canvas, text, (x, y - baseline // 2 - 1), FONT, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
