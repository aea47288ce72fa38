"""Seconds per frame of a trained detector at several budgets, in turn on the frames of one video."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from torch import nn

from ..budgets import apply_budget, describe_budget, parse_budgets
from ..markdown_table import format_table
from ..predictor import share_weights
from ..timing import run_timed


def time_budgets(model: nn.Module, frames: Sequence[dict], budgets: Sequence[str | int], rounds: int = 3) -> list[dict]:
    """Time later frames of a VideoRCNN at several budgets.

    Every frame is run at every budget before the next one is, so what else the machine does meets all of them alike.
    Reading frames takes no part: they are in memory.

    Args:
        frames: the model's inputs for consecutive frames of one video.
        budgets: "dense", or numbers of tokens for top-r.
        rounds: how often the video is run.

    Returns:
        For every budget the medians {"budget", "backbone", "total"} in seconds, of all frames but the first.
    """
    policies = parse_budgets(budgets)
    models = {budget: share_weights(model) for budget in policies}
    seconds: dict[str, list[tuple[float, float]]] = {budget: [] for budget in policies}
    for _ in range(rounds):
        for budget, policy in policies.items():
            apply_budget(models[budget], policy)
        for number, frame in enumerate(frames):
            for budget, own in models.items():
                measured = _time_frame(own, frame)
                if number:
                    seconds[budget].append(measured)
    rows = []
    for budget, measured in seconds.items():
        backbone, total = (statistics.median(column) for column in zip(*measured))
        rows.append({"budget": describe_budget(policies[budget]), "backbone": backbone, "total": total})
    return rows


def _time_frame(model: nn.Module, frame: dict) -> tuple[float, float]:
    call = run_timed(model, [frame], model.device)
    return call.backbone_seconds, call.seconds


def format_times(rows: Sequence[dict]) -> str:
    """A markdown table of `time_budgets`, with how many times faster than the first row each one is."""
    columns = ("budget", "backbone ms", "times faster", "total ms", "times faster")
    first = rows[0]
    lines = [
        (
            row["budget"],
            f"{1000 * row['backbone']:.2f}",
            f"{first['backbone'] / row['backbone']:.2f}",
            f"{1000 * row['total']:.2f}",
            f"{first['total'] / row['total']:.2f}",
        )
        for row in rows
    ]
    return format_table(columns, lines)
