"""A frame with the actions that are seen in it: a strip of text below the picture, and what the last step cost."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ..actions.video_recogniser import ActionResult
from ..budgets import DENSE
from ..structures import SourceFrame
from .cost_strip import CostChart, add_strip, describe_cost, strip_scale
from .labels import draw_caption
from .painter import fit_into

SHOWN = 3
"""Classes of a head in the strip."""
LEAST_WIDTH = 320
"""Pixels; narrower pictures are enlarged, so that the strip can be read."""


class ActionPainter:
    """Paints frames of one size: that of the first, which later ones are fitted into."""

    def __init__(self, heads: Sequence[str], enlarge: float = 1.0) -> None:
        """
        Args:
            heads: the model's, a line each.
            enlarge: factor by which pictures are larger than the frames; 1: as large as LEAST_WIDTH asks for.
        """
        self.heads, self.enlarge = heads, enlarge
        self._size: tuple[int, int] | None = None
        self._chart: CostChart | None = None

    def paint(self, frame: SourceFrame, result: ActionResult | None, latest: ActionResult | None) -> np.ndarray:
        """The frame and its strip.

        Args:
            result: of the step that the frame completed; None where it completed none.
            latest: of the last step, whose text is shown; None where there was none since a new beginning.
        """
        image = self._resize(frame.image)
        self._chart = self._chart or CostChart(image.shape[1], strip_scale(image))
        if result is not None:
            self._chart.add(result.cost, result.budget == DENSE or result.cost.flushed)
        cut = "scene cut" if result is not None and result.scene_cut else ""
        caption = " | ".join(filter(None, [frame.notice, cut]))
        picture = draw_caption(image, caption) if caption else image
        for head in self.heads:
            picture = add_strip(picture, describe_actions(head, latest))
        cost = "" if latest is None else describe_cost(latest.budget, latest.cost, frame.index)
        return np.concatenate([add_strip(picture, cost), self._chart.draw(self._chart.highest)])

    def _resize(self, image: np.ndarray) -> np.ndarray:
        if self._size is None:
            factor = self.enlarge if self.enlarge != 1 else float(max(1, -(-LEAST_WIDTH // image.shape[1])))
            self._size = tuple(max(1, round(factor * side)) for side in image.shape[:2])
        scale = min(self._size[0] / image.shape[0], self._size[1] / image.shape[1])
        if scale > 1:
            size = [max(1, round(scale * side)) for side in image.shape[1::-1]]
            image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
        return fit_into(image, *self._size)


def describe_actions(head: str, result: ActionResult | None) -> str:
    """One line about a head, such as "verb: move left 93% | circle 4% | grow 1%"."""
    if result is None:
        return f"{head}: -"
    if result.best is None:
        return f"{head}: {result.window[0]} of {result.window[1]} steps seen"
    return f"{head}: " + " | ".join(f"{name} {score:.0%}" for name, score in result.best[head][:SHOWN])
