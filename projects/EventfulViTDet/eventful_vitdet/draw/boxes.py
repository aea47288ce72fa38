"""Detections on a frame: a box, class name, score and mask for each. Images are BGR uint8 (H, W, 3)."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

from ..masks import paste_mask
from ..structures import Detections
from .labels import draw_label

GOLDEN_RATIO = 0.618034
MASK_OPACITY = 0.4


def class_color(index: int) -> tuple[int, int, int]:
    """A bright colour (BGR) for a class; always the same for the same index, far apart for neighbours."""
    red, green, blue = colorsys.hsv_to_rgb((index * GOLDEN_RATIO) % 1.0, 0.85, 1.0)
    return round(255 * blue), round(255 * green), round(255 * red)


def class_name(classes: Sequence[str], index: int) -> str:
    """The name of a contiguous class, where it is known."""
    return classes[index] if 0 <= index < len(classes) else f"class {index}"


def draw_detections(
    image: np.ndarray, detections: Detections, classes: Sequence[str], min_score: float = 0.3
) -> np.ndarray:
    """
    Returns a copy of the image with a box, class name and score ("bird 93%") for every detection of at least
    `min_score`, the best on top; and with its mask, where it has one.
    """
    canvas = image.copy()
    thickness = max(1, round(min(image.shape[:2]) / 256))
    if detections.masks is not None:
        draw_masks(canvas, detections, min_score)
    for i in np.argsort(detections.scores, kind="stable"):
        score, index = float(detections.scores[i]), int(detections.classes[i])
        if score < min_score:
            continue
        x0, y0, x1, y1 = (round(float(value)) for value in detections.boxes[i])
        color = class_color(index)
        cv2.rectangle(canvas, (x0, y0), (x1, y1), color, thickness)
        draw_label(canvas, f"{class_name(classes, index)} {score:.0%}", (x0, y0), color)
    return canvas


def draw_masks(canvas: np.ndarray, detections: Detections, min_score: float) -> None:
    """Tint what the masks cover in the colours of their classes, in place; weaker detections are left out."""
    height, width = canvas.shape[:2]
    for i in np.argsort(detections.scores, kind="stable"):
        if detections.scores[i] < min_score:
            continue
        covered = paste_mask(detections.masks[i], detections.boxes[i], height, width)
        color = np.array(class_color(int(detections.classes[i])))
        canvas[covered] = (1 - MASK_OPACITY) * canvas[covered] + MASK_OPACITY * color
