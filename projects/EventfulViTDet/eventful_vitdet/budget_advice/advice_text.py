"""The table of measured budgets, and what is said about how far it can be relied on."""

from __future__ import annotations

import statistics
from dataclasses import asdict

from ..markdown_table import format_number, format_table
from .measured_budgets import Measurement
from .recommendation import Recommendation

COLUMNS = ("budget", "ms", "95th percentile", "GFlops", "agreement", "state, MiB")
BUSY = 0.1
"""Share of the cores that others may take before it is worth a word."""
WIDE = 0.25
"""As `BUSY`, of the spread of a budget's frames."""


def format_measured(measured: Measurement) -> str:
    """A markdown table, a row per budget; times and GFlops are per later frame."""
    rows = [
        (
            budget.name,
            _milliseconds(budget.milliseconds),
            _milliseconds(budget.milliseconds_95),
            format_number(budget.gflops, 3 if measured.dense.gflops < 10 else 1),
            format_number(budget.agreement, 1),
            "-" if budget.r is None else f"{budget.state_bytes / 2**20:.0f}",
        )
        for budget in measured.budgets
    ]
    return format_table(COLUMNS, rows)


def _milliseconds(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def describe_noise(measured: Measurement) -> str | None:
    """How disturbed the measurement was; None where it was quiet."""
    spread = statistics.median(budget.spread for budget in measured.budgets)
    signs = []
    if measured.others is not None and measured.others > BUSY:
        signs.append(f"other programs took {100 * measured.others:.0f} % of the machine's cores meanwhile")
    if spread > WIDE:
        signs.append(f"four fifths of a budget's frames spread over {100 * spread:.0f} % of their median")
    if not signs:
        return None
    return f"these times are noisy: {', and '.join(signs)}. Repeat the command when the machine has nothing else to do"


def advice_as_json(measured: Measurement, advice: Recommendation, command: str | None) -> dict:
    """All of it as plain values."""
    return {
        "frames": measured.frames,
        "interrupted": measured.interrupted,
        "device": measured.device,
        "threads": measured.threads,
        "tokens": measured.tokens,
        "picture": list(measured.picture),
        "share_of_other_programs": measured.others,
        "noise": describe_noise(measured),
        "budgets": [{"budget": budget.name, **asdict(budget)} for budget in measured.budgets],
        "recommended": None if advice.budget is None else advice.budget.name,
        "reason": advice.reason,
        "command": command,
    }
