"""One picture per frame: boxes, updated tokens, the strip of costs, and the dense model beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from ..budgets import DENSE
from ..predictor import FrameResult
from ..shown_score import SHOWN_SCORE
from ..structures import SourceFrame
from .boxes import draw_detections
from .cost_strip import GROUND, CostChart, add_strip, describe_cost, strip_scale
from .labels import draw_caption
from .tokens import choose_gates, draw_tokens, updated_share

GAP_PIXELS = 4


class FramePainter:
    """Paints frames of one size: that of the first, which later ones are fitted into."""

    def __init__(
        self,
        classes: Sequence[str],
        gates: Sequence[str],
        *,
        tokens: str | None = None,
        min_score: float = SHOWN_SCORE,
        enlarge: float = 1.0,
        letters: float | None = None,
    ) -> None:
        """
        Args:
            gates: the model's, `EventfulViT.gate_names`.
            tokens: which updated tokens to show, see `choose_gates`; None shows none.
            min_score: weaker detections are not drawn.
            enlarge: factor by which pictures are larger than the frames.
            letters: size of the labels' letters, see `draw_detections`.

        Raises ConfigError if `tokens` names none.
        """
        self.classes = classes
        self.tokens = tokens
        self.min_score = min_score
        self.enlarge = enlarge
        self.letters = letters
        self._names = choose_gates(gates, tokens) if tokens is not None else []
        self._size: tuple[int, int] | None = None
        self._charts: dict[bool, CostChart] = {}

    def paint(self, frame: SourceFrame, result: FrameResult, dense: FrameResult | None = None) -> np.ndarray:
        """The frame with everything on it; `dense` is the dense model's result, painted to the right."""
        picture = self._paint_model(frame, result)
        if dense is None:
            return picture
        gap = np.full((picture.shape[0], GAP_PIXELS, 3), GROUND, np.uint8)
        return np.concatenate([picture, gap, self._paint_model(frame, dense)], axis=1)

    def draw_frame(self, frame: SourceFrame, result: FrameResult) -> np.ndarray:
        """The frame with tokens and boxes only."""
        image, found, area = frame.image, result.detections, result.token_area
        if self.enlarge != 1:
            size = [max(1, round(self.enlarge * length)) for length in image.shape[1::-1]]
            image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC if self.enlarge > 1 else cv2.INTER_AREA)
            found = replace(found, boxes=found.boxes * self.enlarge)
            area = (area[0] * self.enlarge, area[1] * self.enlarge)
        if self._names and result.budget != DENSE:
            image = draw_tokens(image, updated_share(result.gates, self._names, result.token_grid), area)
        return draw_detections(image, found, self.classes, self.min_score, self.letters)

    def _paint_model(self, frame: SourceFrame, result: FrameResult) -> np.ndarray:
        image = self.draw_frame(frame, result)
        if self._size is None:
            self._size = image.shape[:2]
        image = fit_into(image, *self._size)
        caption = " | ".join(filter(None, [frame.notice, "scene cut" if result.scene_cut else ""]))
        if caption:
            image = draw_caption(image, caption)
        is_dense = result.budget == DENSE
        chart = self._charts.setdefault(is_dense, CostChart(image.shape[1], strip_scale(image)))
        chart.add(result.cost, is_dense or result.cost.flushed)
        # Both charts reach up to the same cost, so that their bars compare.
        highest = max(chart.highest for chart in self._charts.values())
        strip = add_strip(image, describe_cost(result.budget, result.cost, frame.index))
        return np.concatenate([strip, chart.draw(highest)])


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
