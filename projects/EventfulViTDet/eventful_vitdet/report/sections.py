"""The parts of the report: what each shows, or why it shows nothing. `templates/report.html` writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ReportError
from .charts import Point, Series, TimelineChart, TradeoffChart, timeline_chart, tradeoff_chart
from .colors import budget_styles
from .evaluation_folder import AGREEMENT, AP50, SECONDS, TOTAL_GFLOPS, Budget
from .metric_tables import number
from .pictures import Frames, Picture, draw_difference
from .video_summaries import VIDEO_MEASURES, Candidate, VideoSummary, largest_disagreements

MAX_BAR_VIDEOS = 40
SNAPSHOTS = 3
QUALITIES = {
    "AP50 (percent)": AP50,
    "agreement with dense, VID-AP50 (percent)": AGREEMENT,
}
COSTS = {
    "GFlops per frame, everything": (1.0, TOTAL_GFLOPS),
    "milliseconds per frame": (1000.0, SECONDS),
}


@dataclass(frozen=True)
class Photograph:
    """A picture of a frame, or None where it cannot be read, and what is below it."""

    picture: Picture | None
    video: str
    frame: int
    lost: int
    """Boxes that only the dense run has."""
    gained: int
    shared: int


@dataclass(frozen=True)
class Photographs:
    """Pictures of one budget's frames."""

    budget: Budget
    photographs: tuple[Photograph, ...]
    reasons: tuple[str, ...] = ()
    """Why some pictures are missing."""


@dataclass(frozen=True)
class Bars:
    """Costs of every video at every budget, and quality by one measure."""

    quality: str
    """The measure; empty where none was taken."""
    columns: tuple[str, ...]
    rows: tuple[BarRow, ...]
    left_out: int
    """Videos that are not shown."""


@dataclass(frozen=True)
class BarRow:
    """A video: in each column a bar for every budget, as (class, percent of the full length, number)."""

    name: str
    frames: int
    cells: tuple[tuple[tuple[str, str, str], ...], ...]


@dataclass(frozen=True)
class Timeline:
    """The charts of one video; none if no frame of it was recorded."""

    key: str
    name: str
    charts: tuple[TimelineChart, ...]


def tradeoff_charts(budgets: Sequence[Budget]) -> tuple[list[TradeoffChart], list[str]]:
    """Quality against cost, and the names of what was not measured."""
    styles = budget_styles(budgets)
    charts, absent = [], []
    # Joined from the costliest to the cheapest in GFlops, in all charts: times are noisy.
    ordered = sorted(budgets, key=lambda b: b.number(*TOTAL_GFLOPS) or 0, reverse=True)
    for y_label, y_keys in QUALITIES.items():
        for x_label, (factor, x_keys) in COSTS.items():
            points = []
            for budget in ordered:
                x, y = budget.number(*x_keys), budget.number(*y_keys)
                if budget.is_dense and y_keys == AGREEMENT and y is None:
                    y = 100.0  # what the others are compared with
                if x is not None and y is not None:
                    points.append(Point(factor * x, y, budget.label, styles[budget.policy], budget.is_dense))
            if any(not point.is_dense or y_keys != AGREEMENT for point in points):
                charts.append(tradeoff_chart(points, x_label, y_label))
            else:
                absent.append(y_label)
    return charts, list(dict.fromkeys(absent))


def snapshots(
    budget: Budget | None, summaries: Sequence[VideoSummary], names: dict[object, str], frames: Frames
) -> Photographs | None:
    """The middle frames of some videos at a budget, beside what the dense run found there; None without any."""
    have = [s for s in summaries if budget is not None and budget.policy in s.middles]
    if frames.absent or not have:
        return None
    chosen = [have[i] for i in sorted(set(np.linspace(0, len(have) - 1, SNAPSHOTS).astype(int)))]
    reasons: list[str] = []
    items = [_photograph(s.middles[budget.policy], names, frames, reasons, whole=True) for s in chosen]
    return Photographs(budget, tuple(item for item in items if item.picture is not None), tuple(dict.fromkeys(reasons)))


def disagreements(
    budgets: Sequence[Budget],
    first: Budget | None,
    summaries: Sequence[VideoSummary],
    names: dict[object, str],
    frames: Frames,
    count: int,
) -> list[Photographs]:
    """The frames in which each budget differs most from the dense run, beginning with the budget `first`."""
    sparse = [b for b in budgets if not b.is_dense and any(b.policy in s.candidates for s in summaries)]
    sparse.sort(key=lambda b: b is not first)  # the others as they come
    galleries = []
    for budget in sparse:
        reasons: list[str] = []
        chosen = largest_disagreements(summaries, budget.policy, count)
        items = tuple(_photograph(candidate, names, frames, reasons) for candidate in chosen)
        galleries.append(Photographs(budget, items, tuple(dict.fromkeys(reasons))))
    return galleries


def _photograph(
    candidate: Candidate, names: dict[object, str], frames: Frames, reasons: list[str], *, whole: bool = False
) -> Photograph:
    difference = candidate.difference
    try:
        picture = draw_difference(frames, difference, whole=whole)
    except ReportError as error:
        picture = None
        reasons.append(str(error))
    return Photograph(
        picture,
        names.get(candidate.video_id, f"video {candidate.video_id}"),
        frames.by_id.get(difference.image_id, {}).get("frame_id", candidate.position),
        int(difference.only_dense.sum()),
        int(difference.only_eventful.sum()),
        difference.shared // 2,
    )


def video_bars(budgets: Sequence[Budget], summaries: Sequence[VideoSummary], names: dict[object, str]) -> list[Bars]:
    """The bars of all videos, once for each measure of quality that some video has."""
    if not summaries:
        return []
    measured = [quality for quality in VIDEO_MEASURES if any(s.quality.get(quality) for s in summaries)]
    return [_bars_of(quality, budgets, summaries, names) for quality in measured or [""]]


def _bars_of(
    quality: str, budgets: Sequence[Budget], summaries: Sequence[VideoSummary], names: dict[object, str]
) -> Bars:
    """A row per video: quality, agreement, GFlops and milliseconds at every budget; the least agreement first."""
    styles = budget_styles(budgets)
    columns = {
        f"{quality}, percent": (lambda s, policy: s.quality.get(quality, {}).get(policy), 1),
        "in common with dense, percent": (VideoSummary.agreement, 1),
        "GFlops per frame": (lambda s, policy: s.gflops.get(policy), 3),
        "ms per frame": (lambda s, policy: s.milliseconds.get(policy), 1),
    }
    columns = {
        name: column
        for name, column in columns.items()
        if any(column[0](s, b.policy) is not None for s in summaries for b in budgets)
    }
    tops = {
        name: max((value(s, b.policy) or 0 for s in summaries for b in budgets), default=0)
        for name, (value, _) in columns.items()
    }
    rows = []
    for summary in sorted(summaries, key=lambda s: (_worst(s, budgets), str(s.video_id)))[:MAX_BAR_VIDEOS]:
        cells = []
        for name, (value, digits) in columns.items():
            shown = ((b, value(summary, b.policy)) for b in budgets)
            cells.append(tuple(_bar(styles[b.policy], v, tops[name], digits) for b, v in shown if v is not None))
        rows.append(BarRow(_video_name(summary, names), summary.frames, tuple(cells)))
    return Bars(quality, tuple(columns), tuple(rows), max(0, len(summaries) - MAX_BAR_VIDEOS))


def _worst(summary: VideoSummary, budgets: Sequence[Budget]) -> float:
    return min((v for b in budgets if (v := summary.agreement(b.policy)) is not None), default=101.0)


def _bar(style: str, value: float, top: float, digits: int) -> tuple[str, str, str]:
    return style, f"{100 * value / top if top > 0 else 0:.1f}", number(value, digits)


def timelines(budgets: Sequence[Budget], summaries: Sequence[VideoSummary], names: dict[object, str]) -> list[Timeline]:
    """GFlops and milliseconds of every frame of the chosen videos."""
    return [
        Timeline(str(summary.video_id), _video_name(summary, names), tuple(_timeline_charts(budgets, summary)))
        for summary in summaries
        if summary.timelines
    ]


def _video_name(summary: VideoSummary, names: dict[object, str]) -> str:
    return names.get(summary.video_id, f"video {summary.video_id}")


def _timeline_charts(budgets: Sequence[Budget], summary: VideoSummary) -> list[TimelineChart]:
    styles = budget_styles(budgets)
    kept = [b for b in budgets if b.policy in summary.timelines]
    kept = [b for b in kept if len(summary.timelines[b.policy].gflops) == summary.frames > 0]
    if not kept:
        return []
    full = [summary.timelines[b.policy].flushed for b in kept if not b.is_dense]
    flushes = [int(index) for index in np.flatnonzero(np.any(full, axis=0))] if full else []
    charts = []
    for label, column in (("GFlops", "gflops"), ("milliseconds", "milliseconds")):
        if column == "milliseconds" and not summary.milliseconds:
            continue  # measured on different machines
        lines = [Series(b.label, styles[b.policy], getattr(summary.timelines[b.policy], column)) for b in kept]
        charts.append(timeline_chart(lines, label, flushes, width=1000))
    return charts
