"""Charts as inline SVG. Axes begin at zero, so that neither saving nor loss looks larger than it is."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .markup import Markup, join, tag

MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 46, 14, 14, 40
CHARACTER = 6.2
"""Width in pixels of a character of a chart's labels, about."""
PERCENT_END = 106
"""Room above 100 percent for markers and their labels."""
MAX_COLUMNS = 600
"""Points of a timeline; longer videos show the largest value of several frames."""


LABEL_PLACES = ((0, -11, "middle"), (-8, -9, "end"), (-10, 4, "end"), (10, 4, "start"), (0, 20, "middle"))
"""Where a point's label may stand, by preference: pixels to its anchor."""


@dataclass(frozen=True)
class Point:
    """A budget in a trade-off chart."""

    x: float
    y: float
    label: str
    color: str
    is_dense: bool


@dataclass(frozen=True)
class Series:
    """A line over frames, (F,) values."""

    label: str
    color: str
    values: np.ndarray


class Plane:
    """Maps values to the pixels of a chart that begins at (0, 0)."""

    def __init__(self, width: int, height: int, x_max: float, y_max: float) -> None:
        self.width, self.height = width, height
        self.x_ticks, self.y_ticks = ticks(x_max), ticks(y_max)
        # The plane ends a little above the largest value, or at the next tick where that is near.
        self.x_max, self.y_max = (_end(top, marks) for top, marks in ((x_max, self.x_ticks), (y_max, self.y_ticks)))

    def x(self, value: float) -> float:
        return MARGIN_LEFT + (self.width - MARGIN_LEFT - MARGIN_RIGHT) * value / self.x_max

    def y(self, value: float) -> float:
        return self.height - MARGIN_BOTTOM - (self.height - MARGIN_TOP - MARGIN_BOTTOM) * value / self.y_max

    def axes(self, x_label: str, y_label: str) -> Markup:
        """Grid, ticks and names of both axes."""
        parts = []
        left, right, bottom = MARGIN_LEFT, self.width - MARGIN_RIGHT, self.height - MARGIN_BOTTOM
        for value in (mark for mark in self.y_ticks if mark <= self.y_max):
            y = self.y(value)
            parts.append(_line("grid" if value else "axis", left, y, right, y))
            parts.append(_text("tick", left - 7, y + 3.5, tick_text(value, self.y_ticks), "end"))
        for value in (mark for mark in self.x_ticks if mark <= self.x_max):
            parts.append(_text("tick", self.x(value), bottom + 16, tick_text(value, self.x_ticks), "middle"))
        parts.append(_text("label", (left + right) / 2, self.height - 6, x_label, "middle"))
        middle = (MARGIN_TOP + bottom) / 2
        turned = {"class": "label", "text-anchor": "middle", "transform": f"translate(11 {_px(middle)}) rotate(-90)"}
        parts.append(tag("text", turned, y_label))
        return join(*parts)


def ticks(top: float, most: int = 5) -> list[float]:
    """Round numbers from 0 up to at least `top`, at most about `most` of them above 0."""
    if not top > 0:
        return [0.0, 1.0]
    raw = top / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    return [index * step for index in range(math.ceil(top / step - 1e-9) + 1)]


def tick_text(value: float, marks: Sequence[float]) -> str:
    """A tick's number with the digits that its step needs."""
    step = marks[1] - marks[0]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    if abs(step * 10**digits - round(step * 10**digits)) > 1e-6:
        digits += 1
    return f"{value:,.{digits}f}"


def tradeoff_chart(points: Sequence[Point], x_label: str, y_label: str, width: int = 460, height: int = 300) -> Markup:
    """Quality (y, percent) against cost (x): dense as a square with a dotted level, the others joined as they come."""
    plane = Plane(width, height, max(p.x for p in points), 100)
    plane.x_max, plane.y_max = max(plane.x_max, 1.06 * max(p.x for p in points)), PERCENT_END
    parts = [plane.axes(x_label, y_label)]
    for point in (p for p in points if p.is_dense):
        parts.append(_line("level", MARGIN_LEFT, plane.y(point.y), width - MARGIN_RIGHT, plane.y(point.y)))
    path = " ".join(f"{_px(plane.x(p.x))},{_px(plane.y(p.y))}" for p in points if not p.is_dense)
    parts.append(tag("polyline", {"class": "joint", "points": path}))
    places = [(plane.x(p.x), plane.y(p.y)) for p in points]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in places]
    for point, (x, y) in zip(points, places):
        parts.append(_marker(point, x, y, f"{point.label}: {point.y:.2f} at {point.x:.4g}"))
        parts.append(_place_label(point.label, x, y, taken, plane))
    title = f"{y_label} against {x_label}"
    return _svg("chart", width, height, title, *parts)


def _marker(point: Point, x: float, y: float, tip: str) -> Markup:
    title = tag("title", None, tip)
    style = f"--c:{point.color}"
    if point.is_dense:
        square = {"class": "dot", "style": style, "x": _px(x - 5), "y": _px(y - 5), "width": 10, "height": 10, "rx": 2}
        return tag("rect", square, title)
    return tag("circle", {"class": "dot", "style": style, "cx": _px(x), "cy": _px(y), "r": 5.5}, title)


def _place_label(text: str, x: float, y: float, taken: list[tuple], plane: Plane) -> Markup | None:
    """The label where it covers nothing; none at all if there is no such place (the legend has the colours)."""
    text = text if len(text) <= 24 else text[:23] + "…"
    length = CHARACTER * len(text)
    for dx, dy, anchor in LABEL_PLACES:
        start = x + dx - {"start": 0, "middle": length / 2, "end": length}[anchor]
        box = (start, y + dy - 10, start + length, y + dy + 2)
        inside = MARGIN_LEFT + 2 < box[0] and box[2] < plane.width and 0 < box[1] and box[3] < plane.y(0)
        free = all(box[2] + 5 < t[0] or t[2] + 5 < box[0] or box[3] < t[1] or t[3] < box[1] for t in taken)
        if inside and free:
            taken.append(box)
            return _text("name", x + dx, y + dy, text, anchor)
    return None


def timeline_chart(
    series: Sequence[Series], y_label: str, marks: Sequence[int], width: int, height: int = 210
) -> Markup:
    """Values of every frame of a video.

    Args:
        series: lines over the same F frames, one or more.
        marks: indices of frames to mark on the axis: those computed in full.
    """
    count = len(series[0].values)
    group = max(1, math.ceil(count / MAX_COLUMNS))
    starts = np.arange(0, count, group)
    columns = {s.label: np.maximum.reduceat(s.values, starts) for s in series}
    plane = Plane(width, height, max(1, count - 1), max(float(v.max()) for v in columns.values()) or 1.0)
    plane.x_max = max(1, count - 1)  # lines reach the right edge
    parts = [plane.axes("frame of the video", y_label)]
    for mark in marks:
        x = plane.x(mark)
        parts.append(_line("flush", x, plane.y(0), x, plane.y(0) + 5))
    for line in series:
        points = " ".join(
            f"{_px(plane.x(start))},{_px(plane.y(value))}" for start, value in zip(starts, columns[line.label])
        )
        parts.append(tag("polyline", {"class": "series", "style": f"--c:{line.color}", "points": points}))
    parts.append(_line("cursor", 0, MARGIN_TOP, 0, height - MARGIN_BOTTOM))
    values = {
        "left": MARGIN_LEFT,
        "right": width - MARGIN_RIGHT,
        "last": max(1, count - 1),
        "group": group,
        "series": [[s.label, s.color, [float(f"{v:.4g}") for v in columns[s.label]]] for s in series],
    }
    return _svg("chart timeline", width, height, y_label, *parts, data=json.dumps(values))


def _svg(kind: str, width: int, height: int, title: str, *parts: Markup | None, data: str | None = None) -> Markup:
    attributes = {
        "class": kind,
        "viewBox": f"0 0 {width} {height}",
        "role": "img",
        "aria-label": title,
        "data-values": data,
    }
    return tag("svg", attributes, *parts)


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return tag("line", {"class": kind, "x1": _px(x1), "y1": _px(y1), "x2": _px(x2), "y2": _px(y2)})


def _text(kind: str, x: float, y: float, text: str, anchor: str) -> Markup:
    return tag("text", {"class": kind, "x": _px(x), "y": _px(y), "text-anchor": anchor}, text)


def _px(value: float) -> str:
    """A coordinate in pixels, to a hundredth."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _end(top: float, marks: Sequence[float]) -> float:
    return marks[-1] if marks[-1] <= 1.08 * top or top <= 0 else top
