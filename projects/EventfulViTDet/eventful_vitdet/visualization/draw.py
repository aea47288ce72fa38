"""Drawing on frames with OpenCV: boxes with labels, updated tokens, captions. Images are BGR uint8 (H, W, 3)."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

from ..structures import Detections

GOLDEN_RATIO = 0.618034
FONT = cv2.FONT_HERSHEY_SIMPLEX
LABEL_MARGIN = 2  # pixels
TOKEN_COLOR = (255, 150, 30)
TOKEN_OPACITY = (0.12, 0.60)
"""Of a token that one of many gates updated, and of one that all did."""


def class_color(index: int) -> tuple[int, int, int]:
    """A bright colour (BGR) for a class; always the same for the same index, far apart for neighbours."""
    red, green, blue = colorsys.hsv_to_rgb((index * GOLDEN_RATIO) % 1.0, 0.85, 1.0)
    return round(255 * blue), round(255 * green), round(255 * red)


def draw_detections(
    image: np.ndarray, detections: Detections, classes: Sequence[str], min_score: float = 0.3
) -> np.ndarray:
    """
    Returns a copy of the image with a box, class name and score ("bird 93%") for every detection of at least
    `min_score`, the best on top.
    """
    canvas = image.copy()
    thickness = max(1, round(min(image.shape[:2]) / 256))
    for i in np.argsort(detections.scores, kind="stable"):
        score, index = float(detections.scores[i]), int(detections.classes[i])
        if score < min_score:
            continue
        x0, y0, x1, y1 = (round(float(value)) for value in detections.boxes[i])
        color = class_color(index)
        cv2.rectangle(canvas, (x0, y0), (x1, y1), color, thickness)
        name = classes[index] if index < len(classes) else f"class {index}"
        draw_label(canvas, f"{name} {score:.0%}", (x0, y0), color)
    return canvas


def draw_tokens(image: np.ndarray, share: np.ndarray, area: tuple[float, float]) -> np.ndarray:
    """Return a copy of the image with the updated tokens tinted.

    Args:
        share: (h, w), between 0 and 1 for each token: the part of the shown gates that updated it. 0 stays as it is.
        area: height and width, in pixels of the image, of what all tokens together cover. Frames are padded at the
            bottom and on the right, so this may be more than the image.
    """
    height, width = image.shape[:2]
    opacity = np.where(share > 0, TOKEN_OPACITY[0] + (TOKEN_OPACITY[1] - TOKEN_OPACITY[0]) * share, 0.0)
    # Which token every row and column of pixels belongs to.
    rows = np.minimum((np.arange(height) + 0.5) * share.shape[0] / area[0], share.shape[0] - 1).astype(np.int64)
    columns = np.minimum((np.arange(width) + 0.5) * share.shape[1] / area[1], share.shape[1] - 1).astype(np.int64)
    weight = opacity[rows[:, None], columns[None, :], None].astype(np.float32)
    tinted = image + weight * (np.array(TOKEN_COLOR, np.float32) - image)
    return np.round(tinted).astype(np.uint8)


def draw_caption(image: np.ndarray, text: str) -> np.ndarray:
    """Return a copy of the image with a line of text on a dark ground in its upper left corner."""
    canvas = image.copy()
    draw_label(canvas, text, (0, 0), (32, 32, 32))
    return canvas


def fit_into(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The image, resized to fit into height x width pixels and centred on black; unchanged if it has that size."""
    if image.shape[:2] == (height, width):
        return image
    scale = min(height / image.shape[0], width / image.shape[1])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    canvas = np.zeros((height, width, 3), np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
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
