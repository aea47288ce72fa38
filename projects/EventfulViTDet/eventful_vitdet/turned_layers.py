"""Cut-out objects turned by an angle, on a canvas that holds all of them."""

from __future__ import annotations

import math

import cv2
import numpy as np


def turn_layer(
    layer: np.ndarray, angle: float, room: int = 0, around: tuple[float, ...] = ()
) -> tuple[np.ndarray, np.ndarray]:
    """A layer (h, w, C) turned by an angle in degrees, and the (2, 3) matrix that takes its points there.

    Args:
        room: columns and rows more than it needs.
        around: values of what the layer does not reach; () for zeros.
    """
    height, width = layer.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
    cos, sin = abs(turn[0, 0]), abs(turn[0, 1])
    out = (math.ceil(width * cos + height * sin) + room, math.ceil(width * sin + height * cos) + room)
    turn[:, 2] += ((out[0] - width) / 2, (out[1] - height) / 2)
    return cv2.warpAffine(layer, turn, out, flags=cv2.INTER_LINEAR, borderValue=around), turn
