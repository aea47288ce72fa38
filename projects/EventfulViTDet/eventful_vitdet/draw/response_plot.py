"""A picture of how a controller follows its target: what frames cost, what they should cost, and the r it chose."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..control_response import TOLERANCE, StepResponse
from .figure_files import write_figure


def plot_responses(responses: Sequence[StepResponse], unit: str, path: str) -> None:
    """Write costs, targets and budgets of all frames as a PNG, one response after the other."""
    figure = Figure(figsize=(9.0, 4.4), layout="constrained")
    cost, budget = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    _plot_costs(cost, responses, unit)
    r = [r for response in responses for r in response.r]
    budget.step(range(len(r)), r, where="post", color="tab:orange")
    budget.set(xlabel="frame", ylabel="tokens r", xlim=(0, len(r) - 1))
    budget.set_ylim(0, 1.1 * max(r, default=1) + 1)
    budget.grid(alpha=0.3)
    write_figure(figure, path)


def _plot_costs(axes: Axes, responses: Sequence[StepResponse], unit: str) -> None:
    """Costs as a line, flush frames as points, targets with the band that counts as reached."""
    costs = [value for response in responses for value in response.costs]
    flushed = [index for index, flush in enumerate(f for response in responses for f in response.flushed) if flush]
    starts = list(itertools.accumulate((len(response.costs) for response in responses), initial=0))
    for response, start, end in zip(responses, starts, starts[1:]):
        band = (response.target * (1 - TOLERANCE), response.target * (1 + TOLERANCE))
        name = "target, and within 10 % of it" if start == 0 else None
        axes.fill_between((start, end), *band, color="tab:green", alpha=0.15, linewidth=0)
        axes.plot((start, end), (response.target, response.target), color="tab:green", linewidth=1, label=name)
    axes.plot(costs, color="tab:blue", linewidth=1, label="a frame's cost")
    # The axis is made for the other frames: a flush may lie far above them, and is then shown at the upper edge.
    usual = [cost for index, cost in enumerate(costs) if index not in flushed]
    top = 1.15 * max([*usual, *(response.target for response in responses)])
    axes.plot(flushed, [min(costs[i], 0.97 * top) for i in flushed], "^", color="tab:red", markersize=5, label="flush")
    axes.set_ylim(0, top)
    axes.set(ylabel=f"{unit} per frame")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
