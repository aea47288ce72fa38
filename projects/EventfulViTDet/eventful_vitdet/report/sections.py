"""The parts of the report, from top to bottom. Each returns its section, or says in it why there is nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import ReportError
from .charts import Point, Series, timeline_chart, tradeoff_chart
from .evaluation_folder import Budget
from .markup import Markup, tag
from .metric_tables import Rows, legend, metric_table, number, summary_table
from .pictures import Frames, draw_difference
from .video_summaries import Candidate, VideoSummary, largest_disagreements

MAX_BAR_VIDEOS = 40
GFLOPS = ("gflops_per_frame", "total", "mean")
QUALITIES = {
    "AP50 (percent)": ("bbox", "AP50"),
    "agreement with dense, VID-AP50 (percent)": ("agreement", "VID-AP50"),
}
COSTS = {
    "GFlops per frame, everything": (1.0, GFLOPS),
    "milliseconds per frame": (1000.0, ("seconds_per_frame", "total")),
}
TOLERATED_LOSS = 1.0
"""Points of AP50 below the dense model at which a budget still counts as keeping its quality."""


def tiles(budgets: Sequence[Budget]) -> Markup | None:
    """The headline: the cheapest budget that keeps the dense AP50 within a point. None without a dense run."""
    dense = next((b for b in budgets if b.is_dense), None)
    quality, cost = ("bbox", "AP50"), GFLOPS
    top = dense.number(*quality) if dense else None
    if dense is None or top is None:
        return None
    kept = [
        b for b in budgets if not b.is_dense and (b.number(*quality) or 0) >= top - TOLERATED_LOSS and b.number(*cost)
    ]
    parts = [_tile(f"{top:.1f}", "AP50 of the dense model")]
    if kept:
        best = min(kept, key=lambda b: b.number(*cost) or 0)
        parts.append(_tile(f"{best.number(*quality):.1f}", f"AP50 at {best.label}, the cheapest within a point of it"))
        for name, keys in (("backbone", "backbone"), ("total", "total")):
            full, less = (b.number("gflops_per_frame", keys, "mean") for b in (dense, best))
            if full and less:
                parts.append(_tile(f"{full / less:.1f}×", f"fewer {name} GFlops per frame at {best.label}"))
    return tag("div", {"class": "tiles"}, *parts)


def _tile(value: str, text: str) -> Markup:
    return tag("div", {"class": "tile"}, tag("b", None, value), tag("span", None, text))


def tradeoff(budgets: Sequence[Budget], colors: dict[str, str]) -> Markup:
    """Quality against cost in four charts, and the numbers."""
    charts = []
    # Joined from the costliest to the cheapest in GFlops, in all charts: times are noisy.
    ordered = sorted(budgets, key=lambda b: b.number(*GFLOPS) or 0, reverse=True)
    for y_label, y_keys in QUALITIES.items():
        for x_label, (factor, x_keys) in COSTS.items():
            points = []
            for budget in ordered:
                x, y = budget.number(*x_keys), budget.number(*y_keys)
                if budget.is_dense and y_keys[0] == "agreement" and y is None:
                    y = 100.0  # what the others are compared with
                if x is not None and y is not None:
                    points.append(Point(factor * x, y, budget.label, colors[budget.policy], budget.is_dense))
            measured = any(not point.is_dense or y_keys[0] != "agreement" for point in points)
            charts.append(tradeoff_chart(points, x_label, y_label) if measured else _not_measured(y_label))
    charts = list(dict.fromkeys(charts))  # what was not measured is said once
    return section(
        "Quality against cost",
        "Every point is one budget on the same weights and videos; the square is the plain, dense detector. "
        "One GFlop is 10⁹ multiply-accumulates.",
        legend(budgets, colors),
        tag("div", {"class": "grid"}, *charts),
        summary_table(budgets, colors),
    )


def classes(budgets: Sequence[Budget], colors: dict[str, str]) -> Markup:
    """AP per class."""
    known = frozenset(name[3:] for b in budgets for name in b.group("bbox") if name.startswith("AP-"))
    parts = (
        Rows("AP", "bbox", "AP-"),
        Rows("VID-AP50", "bbox", "VID-AP50-", only=known),
        Rows("agreement with dense, VID-AP50", "agreement", "VID-AP50-", only=known),
    )
    return _metrics("Per class", "Average precision of every class at every budget.", budgets, colors, parts)


def motion(budgets: Sequence[Budget], colors: dict[str, str]) -> Markup:
    """Metrics by motion speed, object size and time since the last full frame."""
    parts = (
        Rows("by motion speed, VID-AP50", "motion", "VID-AP50-", "objects-"),
        Rows("by object size, VID-AP50", "size", "VID-AP50-", "objects-"),
        Rows("by frames since the last full one, VID-AP50", "stability", "VID-AP50-age-", "objects-age-"),
        Rows("agreement by frames since the last full one, VID-AP50", "agreement", "VID-AP50-age-", "objects-age-"),
    )
    text = "An eventful model might lose fast objects first, and drift away with every frame since the last full one."
    return _metrics("Per motion speed", text, budgets, colors, parts)


def _metrics(title: str, text: str, budgets: Sequence[Budget], colors: dict[str, str], parts: Sequence[Rows]) -> Markup:
    table = metric_table(budgets, colors, parts)
    return section(title, text, table if table is not None else _note("Not measured in this evaluation."))


def bars(
    budgets: Sequence[Budget], colors: dict[str, str], summaries: Sequence[VideoSummary], names: dict[object, str]
) -> Markup:
    """A row per video: AP50, agreement, GFlops and milliseconds at every budget; the least agreement first."""
    title = "Per video"
    if not summaries:
        return section(title, "", _note("The folder holds no records of single videos."))
    columns = {
        "AP50, percent": (lambda s, policy: s.ap50.get(policy), 1),
        "in common with dense, percent": (VideoSummary.agreement, 1),
        "GFlops per frame": (lambda s, policy: s.gflops.get(policy), 3),
        "ms per frame": (lambda s, policy: s.milliseconds.get(policy), 1),
    }
    columns = {
        name: column
        for name, column in columns.items()
        if any(column[0](s, b.policy) is not None for s in summaries for b in budgets)
    }
    cells = [tag("div", {"class": "head"}, "video"), *(tag("div", {"class": "head"}, name) for name in columns)]
    ordered = sorted(summaries, key=lambda s: (_worst(s, budgets), str(s.video_id)))
    tops = [
        max((value(s, b.policy) or 0 for s in summaries for b in budgets), default=0) for value, _ in columns.values()
    ]
    for summary in ordered[:MAX_BAR_VIDEOS]:
        cells.append(tag("div", {"class": "rule"}))
        name, frames = names.get(summary.video_id, f"video {summary.video_id}"), f"{summary.frames} frames"
        cells.append(tag("div", {"class": "video"}, tag("bdi", {"title": name}, name), tag("small", None, frames)))
        for (column, (value, digits)), top in zip(columns.items(), tops):
            shown = [(b, value(summary, b.policy)) for b in budgets]
            drawn = [_bar(colors[b.policy], v, top, digits) for b, v in shown if v is not None]
            cells.append(tag("div", {"class": "cell", "data-column": column}, *drawn))
    left_out = len(ordered) - MAX_BAR_VIDEOS
    more = f" {left_out} more videos, which agree better, are left out." if left_out > 0 else ""
    return section(
        title,
        "Videos in which budgets differ most from the dense run come first. In common are boxes of score 0.5 and more "
        "that the other run has too, with the same class and an IoU of at least 0.5." + more,
        legend(budgets, colors),
        tag("div", {"class": "bars", "style": f"--n:{len(columns)}"}, *cells),
    )


def _worst(summary: VideoSummary, budgets: Sequence[Budget]) -> float:
    return min((v for b in budgets if (v := summary.agreement(b.policy)) is not None), default=101.0)


def _bar(color: str, value: float, top: float, digits: int) -> Markup:
    style = f"--c:{color};--w:{100 * value / top if top > 0 else 0:.1f}%"
    return tag("div", {"class": "bar"}, tag("i", {"style": style}), number(value, digits))


def timelines(
    budgets: Sequence[Budget], colors: dict[str, str], summaries: Sequence[VideoSummary], names: dict[object, str]
) -> Markup:
    """GFlops and milliseconds of every frame of the chosen videos."""
    title = "Compute timeline"
    shown = [summary for summary in summaries if summary.timelines]
    if not shown:
        return section(title, "", _note("The folder holds no records of single videos."))
    options, parts = [], []
    for summary in shown:
        name = names.get(summary.video_id, f"video {summary.video_id}")
        options.append(tag("option", {"value": summary.video_id}, name))
        charts = _timeline_charts(budgets, colors, summary)
        heading = tag("h3", None, tag("bdi", None, name))
        scrolled = tag("div", {"class": "scroll"}, *charts)
        parts.append(tag("div", {"data-part": "timeline", "data-key": summary.video_id}, heading, scrolled))
    choice = tag(
        "div",
        {"class": "choice", "data-chooses": "timeline", "hidden": True},
        tag("label", {"for": "video"}, "video"),
        tag("select", {"id": "video", "autocomplete": "off"}, *options),
    )
    text = "What every frame cost. Ticks on the axis mark frames that were computed in full."
    return section(title, text, legend(budgets, colors), choice, *parts)


def _timeline_charts(budgets: Sequence[Budget], colors: dict[str, str], summary: VideoSummary) -> list[Markup]:
    kept = [b for b in budgets if b.policy in summary.timelines]
    kept = [b for b in kept if len(summary.timelines[b.policy].gflops) == summary.frames > 0]
    if not kept:
        return [_note("No frame of this video was recorded.")]
    full = [summary.timelines[b.policy].flushed for b in kept if not b.is_dense]
    marks = [int(index) for index in np.flatnonzero(np.any(full, axis=0))] if full else []
    charts = []
    for label, column in (("GFlops", "gflops"), ("milliseconds", "milliseconds")):
        if column == "milliseconds" and not summary.milliseconds:
            charts.append(_note("No milliseconds: they were measured on different machines."))
            continue
        lines = [Series(b.label, colors[b.policy], getattr(summary.timelines[b.policy], column)) for b in kept]
        charts.append(timeline_chart(lines, label, marks, width=1000))
    return charts


def disagreements(
    budgets: Sequence[Budget],
    summaries: Sequence[VideoSummary],
    names: dict[object, str],
    frames: Frames,
    count: int,
) -> Markup:
    """Pictures of the frames in which a budget differs most from the dense run, or the reason why there are none."""
    title = "Largest disagreements with the dense model"
    sparse = [b for b in budgets if not b.is_dense and any(b.policy in s.candidates for s in summaries)]
    if not sparse:
        return section(title, "", _note("There are no records of a dense run and of another one to compare."))
    if frames.absent:
        return section(title, "", _note(f"No pictures: {frames.absent}."))
    buttons, parts, reasons = [], [], []
    for budget in reversed(sparse):  # the most frugal, which differs most, first
        buttons.append(tag("button", {"type": "button", "value": budget.policy}, budget.label))
        chosen = largest_disagreements(summaries, budget.policy, count)
        figures = [_figure(candidate, names, frames, reasons) for candidate in chosen]
        inside = tag("div", {"class": "gallery"}, *figures) if chosen else _note("The two agree in every frame.")
        part = {"data-part": "disagreement", "data-key": budget.policy}
        heading = tag("h3", None, budget.label)
        parts.append(tag("div", part, heading, inside))
    keys = (("dense", "only the dense model"), ("eventful", "only the eventful model"), ("both", "both"))
    key = [tag("span", {"class": "key"}, tag("span", {"class": f"mark {kind}"}), text) for kind, text in keys]
    return section(
        title,
        "Marked are boxes of score 0.5 and more that the other run lacks, even at score 0.25. Frames with the largest "
        "sum of their scores come first; frames of one video are at least ten apart. Which run is right, the pictures "
        "tell.",
        tag("div", {"class": "legend"}, *key),
        tag("div", {"class": "choice", "data-chooses": "disagreement", "hidden": True}, *buttons),
        *(_note(f"Some pictures are missing: {reason}.") for reason in dict.fromkeys(reasons)),
        *parts,
    )


def _figure(candidate: Candidate, names: dict[object, str], frames: Frames, reasons: list[str]) -> Markup:
    difference = candidate.difference
    name = names.get(candidate.video_id, f"video {candidate.video_id}")
    try:
        picture = draw_difference(frames, difference)
    except ReportError as error:
        picture = None
        reasons.append(str(error))
    frame = frames.by_id.get(difference.image_id, {}).get("frame_id", candidate.position)
    lost, gained = int(difference.only_dense.sum()), int(difference.only_eventful.sum())
    caption = tag(
        "figcaption",
        None,
        tag("b", None, tag("bdi", None, name), f", frame {frame}"),
        f" · {lost} only dense, {gained} only eventful, {difference.shared // 2} in common",
    )
    return tag("figure", None, picture, caption)


def section(title: str, text: str, *parts: Markup | None) -> Markup:
    """A titled part of the page."""
    return tag("section", None, tag("h2", None, title), tag("p", {"class": "soft"}, text) if text else None, *parts)


def _note(text: str) -> Markup:
    return tag("div", {"class": "note"}, text)


def _not_measured(what: str) -> Markup:
    return _note(f"{what}: not measured in this evaluation.")
