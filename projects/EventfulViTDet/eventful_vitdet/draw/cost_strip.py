"""The strip below a picture: budget, GFlops and milliseconds of the frame, and a chart of the last frames' GFlops."""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np

from ..structures import FrameCost
from .labels import FONT, text_scale

GROUND, INK, BAR, FULL = (32, 32, 32), (235, 235, 235), (210, 160, 60), (80, 170, 250)
BAR_PIXELS, CHART_PIXELS = 3, 40  # at letters of scale 0.45
LINE = 24  # pixels at letters of scale 0.45
SCALE = 0.45


def describe_cost(budget: str, cost: FrameCost, index: int) -> str:
    """One line about a frame, such as "top-r 128 | 2.13 GFlops | 127 ms | frame 40"."""
    milliseconds = 1000 * cost.total_seconds
    flush = " (flush)" if cost.flushed else ""
    return f"{budget} | {cost.total_gflops:.2f} GFlops | {milliseconds:.0f} ms | frame {index}{flush}"


def strip_scale(image: np.ndarray) -> float:
    """How much larger than usual the strip of a large picture is."""
    return max(1.0, text_scale(image) / SCALE)


def add_strip(image: np.ndarray, text: str) -> np.ndarray:
    """Return the image with a dark strip below it that holds a line of text, shrunk to fit the width."""
    scale = SCALE * strip_scale(image)
    height = round(LINE * scale / SCALE)
    strip = np.full((height, image.shape[1], 3), GROUND, np.uint8)
    weight = max(1, round(scale))
    (width, _), _ = cv2.getTextSize(text, FONT, scale, weight)
    scale *= min(1.0, (image.shape[1] - 12) / max(1, width))
    cv2.putText(strip, text, (6, height - height // 3), FONT, scale, INK, weight, cv2.LINE_AA)
    return np.concatenate([image, strip])


class CostChart:
    """A chart of the last frames: a bar for each, as high as its GFlops, those computed in full in another colour."""

    def __init__(self, width: int, scale: float = 1.0) -> None:
        """
        Args:
            width: pixels.
            scale: enlarges bars and height, for large pictures.
        """
        self.width, self.height, self._bar = width, round(CHART_PIXELS * scale), round(BAR_PIXELS * scale)
        self._costs: deque[tuple[float, bool]] = deque(maxlen=max(1, width // self._bar))
        self.highest = 0.0
        """GFlops of the costliest frame so far."""

    def add(self, cost: FrameCost, full: bool) -> None:
        """Append a frame; `full` is one that was computed in full, by the dense model or as a flush."""
        self._costs.append((cost.total_gflops, full))
        self.highest = max(self.highest, cost.total_gflops)

    def draw(self, top_gflops: float) -> np.ndarray:
        """The chart, (height, width, 3), with `top_gflops` at its upper edge."""
        canvas = np.full((self.height, self.width, 3), GROUND, np.uint8)
        for i, (gflops, full) in enumerate(self._costs):
            top = self.height - 1 - round(gflops / (top_gflops or 1) * (self.height - 4))
            left, gap = i * self._bar, 1 + self._bar // 4
            cv2.rectangle(canvas, (left, top), (left + self._bar - 1 - gap, self.height), FULL if full else BAR, -1)
        return canvas
