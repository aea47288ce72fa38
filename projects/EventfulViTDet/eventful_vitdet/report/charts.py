"""The geometry of the report's charts, in pixels; `templates/charts.html` draws them as SVG.

Axes of quality against cost begin where the data are, and bear a mark where that is not zero.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..draw.label_placement import Box, place_label

MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 56, 16, 14, 42
CHARACTER, LINE = 6.4, 14.0
"""Width of a character and height of a line of a chart's labels, about."""
LONGEST_LABEL = 24
DOT = 7.0
"""Half the side of what a point's marker covers."""
SMALLEST_SPAN = 5.0
"""Points of quality that an axis covers at least: smaller differences are to look small."""
EMPTY_SHARE = 0.4
"""Where the smallest value lies above this part of the largest, an axis does not begin at zero."""
RINGS = (0.0, 14.0, 30.0)
"""How far from its usual place a label may stand; a line leads from the farther ones to the point."""
MAX_COLUMNS = 600
"""Points of a timeline; longer videos show the largest value of several frames."""


@dataclass(frozen=True)
class Point:
    """A budget in a trade-off chart."""

    x: float
    y: float
    label: str
    style: str
    """Name of the class that gives it its colour."""
    is_dense: bool


@dataclass(frozen=True)
class Series:
    """A line over frames, (F,) values."""

    label: str
    style: str
    values: np.ndarray


@dataclass(frozen=True)
class Axis:
    """One axis: values from `low` to `high` lie at pixels from `start` to `end`."""

    label: str
    low: float
    high: float
    start: float
    end: float
    ticks: tuple[tuple[float, str], ...] = ()
    """Pixel and text of each."""

    @property
    def is_broken(self) -> bool:
        """Whether it begins elsewhere than at zero."""
        return self.low > 0

    def place(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Mark:
    """A budget's marker and its label."""

    point: Point
    x: float
    y: float
    tip: str
    text: str
    text_x: float
    text_y: float
    """The left end of the label's base line."""
    leader: tuple[float, float] | None
    """Where a line from the point to the label ends, if that is far."""


@dataclass(frozen=True)
class TradeoffChart:
    """Quality (percent, upwards) against cost; dense as a square with a dotted level, the others joined."""

    width: int
    height: int
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]

    @property
    def title(self) -> str:
        return f"{self.y.label} against {self.x.label}"

    @property
    def joint(self) -> str:
        """The line through the budgets, for a polyline."""
        return path((mark.x, mark.y) for mark in self.marks if not mark.point.is_dense)


@dataclass(frozen=True)
class TimelineChart:
    """Values of every frame of a video."""

    width: int
    height: int
    x: Axis
    y: Axis
    flushes: tuple[float, ...]
    """Where frames were computed in full."""
    lines: tuple[tuple[str, str], ...]
    """Style and points of each series."""
    values: str
    """All that is needed to read the chart, as JSON."""

    @property
    def title(self) -> str:
        return self.y.label


def tradeoff_chart(
    points: Sequence[Point], x_label: str, y_label: str, width: int = 400, height: int = 290
) -> TradeoffChart:
    """Place axes, points and labels. The points are joined in their order."""
    x = make_axis(x_label, [p.x for p in points], MARGIN_LEFT, width - MARGIN_RIGHT)
    y = make_axis(y_label, [p.y for p in points], height - MARGIN_BOTTOM, MARGIN_TOP, SMALLEST_SPAN, most=100.0)
    marks = tuple(_place_marks(points, x, y))
    return TradeoffChart(width, height, x, y, marks)


def timeline_chart(
    series: Sequence[Series], y_label: str, flushes: Sequence[int], width: int, height: int = 210
) -> TimelineChart:
    """Place the lines of a video.

    Args:
        series: lines over the same F frames, one or more.
        flushes: indices of frames to mark on the axis: those computed in full.
    """
    count = len(series[0].values)
    group = max(1, math.ceil(count / MAX_COLUMNS))
    starts = np.arange(0, count, group)
    columns = {s.label: np.maximum.reduceat(s.values, starts) for s in series}
    last = max(1, count - 1)
    x = _with_ticks("frame of the video", 0.0, last, MARGIN_LEFT, width - MARGIN_RIGHT)
    top = max(float(v.max()) for v in columns.values()) or 1.0
    y = _with_ticks(y_label, 0.0, 1.04 * top, height - MARGIN_BOTTOM, MARGIN_TOP)
    lines = tuple(
        (s.style, path((x.place(start), y.place(value)) for start, value in zip(starts, columns[s.label])))
        for s in series
    )
    values = {
        "left": x.start,
        "right": x.end,
        "last": last,
        "group": group,
        "series": [[s.label, s.style, [float(f"{v:.4g}") for v in columns[s.label]]] for s in series],
    }
    return TimelineChart(width, height, x, y, tuple(x.place(f) for f in flushes), lines, json.dumps(values))


def make_axis(
    label: str, values: Sequence[float], start: float, end: float, span: float = 0.0, most: float | None = None
) -> Axis:
    """An axis around some values. It begins at zero unless most of it would then be empty.

    Args:
        span: what it covers at least.
        most: the largest value that has a meaning: no tick lies above it.
    """
    low, high = min(values), max(values)
    if high <= 0:
        return _with_ticks(label, 0.0, 1.0, start, end, most)
    room = max(0.14 * (high - low), (span - high + low) / 2) or 0.1 * high
    if low <= EMPTY_SHARE * high:
        return _with_ticks(label, 0.0, max(high + min(room, 0.08 * high), span), start, end, most)
    return _with_ticks(label, max(0.0, low - room), high + room, start, end, most)


def _with_ticks(label: str, low: float, high: float, start: float, end: float, most: float | None = None) -> Axis:
    axis = Axis(label, low, high, start, end)
    values = ticks(low, high)
    kept = [value for value in values if most is None or value <= most]
    return Axis(label, low, high, start, end, tuple((axis.place(v), tick_text(v, values)) for v in kept))


def ticks(low: float, high: float) -> list[float]:
    """Round numbers within [low, high], three to seven of them."""
    raw = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def tick_text(value: float, marks: Sequence[float]) -> str:
    """A tick's number with the digits that its step needs."""
    step = marks[1] - marks[0] if len(marks) > 1 else abs(value) or 1.0
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    if abs(step * 10**digits - round(step * 10**digits)) > 1e-6:
        digits += 1
    return f"{value:,.{digits}f}"


def _place_marks(points: Sequence[Point], x: Axis, y: Axis) -> Iterator[Mark]:
    places = [(x.place(p.x), y.place(p.y)) for p in points]
    labels = [(px - DOT, py - DOT, px + DOT, py + DOT) for px, py in places]
    soft = list(_along([place for p, place in zip(points, places) if not p.is_dense]))
    bounds = (MARGIN_LEFT + 4.0, 0.0, x.end + MARGIN_RIGHT, y.start - 2.0)
    for point, (px, py) in zip(points, places):
        text = point.label if len(point.label) <= LONGEST_LABEL else point.label[: LONGEST_LABEL - 1] + "…"
        size = (CHARACTER * len(text) + 4, LINE)  # with room beside it
        corners = list(_corners(px, py, size, bounds))
        left, top = corners[place_label(size, corners, bounds, labels, soft)]
        tip = f"{point.label}: {point.y:.2f} at {point.x:.4g}"
        leader = _leader(px, py, (left, top, left + size[0], top + size[1]))
        yield Mark(point, px, py, tip, text, left + 2, top + LINE - 3.5, leader)


def _corners(x: float, y: float, size: tuple[float, float], bounds: Box) -> Iterator[tuple[float, float]]:
    """Upper left corners of a label around a point: above, beside and below it, then the same farther away."""
    width, height = size
    for ring in RINGS:
        gap = DOT + 1 + ring
        for left, top in (
            (x - width / 2, y - gap - height),
            (x - gap - width, y - height / 2),
            (x + gap, y - height / 2),
            (x - width / 2, y + gap),
            (x - gap - width, y - gap - height / 2),
            (x + gap, y - gap - height / 2),
            (x - gap - width, y + gap - height / 2),
            (x + gap, y + gap - height / 2),
        ):
            yield max(bounds[0], min(left, bounds[2] - width)), max(bounds[1], min(top, bounds[3] - height))


def _leader(x: float, y: float, box: Box) -> tuple[float, float] | None:
    """The point of a label that is nearest to its point, if a line has to say which it belongs to."""
    nearest = (max(box[0], min(x, box[2])), max(box[1], min(y, box[3])))
    return nearest if math.dist((x, y), nearest) > DOT + RINGS[1] / 2 else None


def _along(places: Sequence[tuple[float, float]], step: float = 6.0) -> Iterator[Box]:
    """Small boxes along the line through some places."""
    for (x0, y0), (x1, y1) in zip(places, places[1:]):
        count = max(1, round(math.dist((x0, y0), (x1, y1)) / step))
        for i in range(count + 1):
            px, py = x0 + (x1 - x0) * i / count, y0 + (y1 - y0) * i / count
            yield (px - 2, py - 2, px + 2, py + 2)


def path(places: object) -> str:
    """Places (x, y) as the points of a polyline."""
    return " ".join(f"{pixel(x)},{pixel(y)}" for x, y in places)


def pixel(value: float) -> str:
    """A coordinate in pixels, to a hundredth."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
