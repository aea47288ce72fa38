"""Detections on a frame: a box, class name, score and mask for each. Images are BGR uint8 (H, W, 3)."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

from ..identities import UNKNOWN
from ..masks import paste_mask
from ..shown_score import SHOWN_SCORE
from ..structures import Detections
from .label_placement import corners_around, place_label
from .labels import draw_label, label_size, text_scale

GOLDEN_RATIO = 0.618034
MASK_OPACITY = 0.4


def class_color(index: int) -> tuple[int, int, int]:
    """A bright colour (BGR) for a class; always the same for the same index, far apart for neighbours."""
    red, green, blue = colorsys.hsv_to_rgb((index * GOLDEN_RATIO) % 1.0, 0.85, 1.0)
    return round(255 * blue), round(255 * green), round(255 * red)


def class_name(classes: Sequence[str], index: int) -> str:
    """The name of a contiguous class, where it is known."""
    return classes[index] if 0 <= index < len(classes) else f"class {index}"


def object_number(detections: Detections, row: int) -> str:
    """ "#3 " for a detection of the object with that number, "" where it has none."""
    known = detections.tracks is not None and detections.tracks[row] != UNKNOWN
    return f"#{detections.tracks[row]} " if known else ""


def draw_detections(
    image: np.ndarray,
    detections: Detections,
    classes: Sequence[str],
    min_score: float = SHOWN_SCORE,
    letters: float | None = None,
) -> np.ndarray:
    """Return a copy of the image with a box, class name and score ("bird 93%") for every detection of at least
    `min_score`, the best on top; with its mask, where it has one, and its object's number ("#3 bird 93%"). Labels keep
    clear of each other where there is room. `letters` is the size of their letters, for OpenCV; by default, one that
    suits the image.
    """
    canvas = image.copy()
    thickness = max(1, round(min(image.shape[:2]) / 256))
    if detections.masks is not None:
        draw_masks(canvas, detections, min_score)
    order = [int(i) for i in np.argsort(-detections.scores, kind="stable") if detections.scores[i] >= min_score]
    boxes = {i: tuple(round(float(value)) for value in detections.boxes[i]) for i in order}
    for i in reversed(order):
        cv2.rectangle(canvas, boxes[i][:2], boxes[i][2:], class_color(int(detections.classes[i])), thickness)
    height, width = canvas.shape[:2]
    scale, bounds = letters or text_scale(canvas), (0, 0, width, height)
    labels: list = []
    for i in order:  # the best have the choice
        index = int(detections.classes[i])
        text = f"{object_number(detections, i)}{class_name(classes, index)} {float(detections.scores[i]):.0%}"
        size = label_size(text, scale)
        corners = corners_around(boxes[i], size, bounds)
        corner = corners[place_label(size, corners, bounds, labels, list(boxes.values()))]
        draw_label(canvas, text, (round(corner[0]), round(corner[1])), class_color(index), scale)
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
