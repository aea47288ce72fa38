"""The plot of accuracy against cost, from budgets.json."""

from __future__ import annotations

import json
from collections.abc import Sequence

from matplotlib.figure import Figure

from ..budgets import DENSE, short_label
from .figure_files import write_figure

PANELS = {
    "backbone": "backbone GFlops per frame",
    "total": "total GFlops per frame (everything the frame ran)",
}


def plot_budgets(budgets_json: str, path: str, title: str = "") -> None:
    """Read a budgets.json and write the plot of AP50 against GFlops per frame as a PNG."""
    with open(budgets_json, encoding="utf-8") as file:
        plot_tradeoff(json.load(file), path, title)


def plot_tradeoff(results: Sequence[dict], path: str, title: str = "") -> None:
    """Plot AP50 (percent) against mean GFlops per frame of several evaluations, backbone and total side by
    side.

    The dense result is a square and a level; the others are joined in order of their cost. Evaluations
    without a defined AP50 are left out.
    """
    shown = [result for result in results if result["bbox"]["AP50"] is not None]
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    for position, (part, label) in enumerate(PANELS.items(), start=1):
        axes = figure.add_subplot(1, len(PANELS), position)
        points = sorted((r["gflops_per_frame"][part]["mean"], r["bbox"]["AP50"], r["policy"]) for r in shown)
        sparse = [point for point in points if point[2] != DENSE]
        axes.plot([p[0] for p in sparse], [p[1] for p in sparse], "o-", color="tab:blue", label="eventful")
        for gflops, ap50, _ in (point for point in points if point[2] == DENSE):
            axes.plot([gflops], [ap50], "s", color="black", label="dense")
            axes.axhline(ap50, color="black", linewidth=0.8, linestyle=":")
        for i, (gflops, ap50, policy) in enumerate(points):
            place = (5, -12 if i % 2 else 6)  # in turn above and below, as neighbours may be close
            axes.annotate(short_label(policy), (gflops, ap50), textcoords="offset points", xytext=place, fontsize=8)
        axes.set(xlabel=label, ylabel="AP50 (percent)")
        # Both axes begin at zero, so that neither saving nor loss looks larger than it is.
        axes.set_xlim(0, 1.15 * max((p[0] for p in points), default=0) or 1)
        axes.set_ylim(0, 1.15 * max((p[1] for p in points), default=0) or 1)
        axes.grid(alpha=0.3)
        if points:
            axes.legend(loc="lower right")
    if title:
        figure.suptitle(title)
    write_figure(figure, path)
