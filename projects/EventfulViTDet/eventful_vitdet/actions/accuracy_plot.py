"""Accuracy against operations of several budgets, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..budgets import DENSE, short_label
from ..files import open_atomically

SIZE_INCHES = (6.4, 4.0)


def write_accuracy_plot(path: str, results: Sequence[Mapping], title: str) -> None:
    """Draw top-1 accuracy of every head against GFlops per clip, an SVG file.

    Args:
        results: contents of results.json, one for each budget.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="GFlops per clip, everything", ylabel="top-1 accuracy, percent")
    ordered = sorted(results, key=lambda result: result["gflops_per_clip"]["total"])
    gflops = [result["gflops_per_clip"]["total"] for result in ordered]
    heads = [name.removesuffix("_top1") for name in ordered[0]["accuracy"] if name.endswith("_top1")]
    for head in heads:
        values = [result["accuracy"][f"{head}_top1"] for result in ordered]
        axes.plot(gflops, values, marker="o", markersize=4, label=head)
    for result, x in zip(ordered, gflops):
        name = "dense" if result["policy"] == DENSE else short_label(result["policy"])
        lowest = min(result["accuracy"][f"{head}_top1"] for head in heads)
        axes.annotate(name, (x, lowest), xytext=(0, -12), textcoords="offset points", ha="center", fontsize=8)
    axes.set_xlim(left=0)
    axes.margins(y=0.15)
    axes.grid(alpha=0.3)
    axes.legend()
    with open_atomically(path) as file:
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
