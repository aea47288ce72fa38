"""What the evaluation says to somebody who has to choose a budget: the report's headline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .evaluation_folder import AGREEMENT, AP50, BACKBONE_GFLOPS, SECONDS, TOTAL_GFLOPS, Budget

TOLERATED_LOSS = 1.0
"""Points of AP50 below the dense model at which a budget still counts as keeping its quality."""
SAME_SPEED = 1.05
"""Ratios of times below this one are not worth a word."""


@dataclass(frozen=True)
class Quality:
    """What budgets are judged by."""

    name: str
    keys: tuple[str, ...]
    dense: float


@dataclass(frozen=True)
class Advice:
    """A budget, in a sentence and in numbers."""

    budget: Budget | None
    """None where no budget saves anything."""
    sentence: str
    tiles: tuple[tuple[str, str], ...] = ()
    """Value and what it is."""


def advise(budgets: Sequence[Budget]) -> Advice | None:
    """The cheapest budget that keeps the dense quality within a point, or else the one that loses least.

    None without a dense run, or without other budgets to compare with it.
    """
    dense = next((b for b in budgets if b.is_dense), None)
    quality = _quality(dense, budgets) if dense is not None else None
    if dense is None or quality is None:
        return None
    measured = [b for b in budgets if not b.is_dense and b.number(*quality.keys) is not None]
    saving = [b for b in measured if _ratio(dense, b, TOTAL_GFLOPS) > 1]
    if not measured:
        return None
    if not saving:
        return Advice(None, "No budget that was evaluated takes fewer operations than the dense model.")
    keeping = [b for b in saving if _loss(b, quality) <= TOLERATED_LOSS]
    if keeping:
        best = min(keeping, key=lambda b: b.number(*TOTAL_GFLOPS) or 0.0)
        values = f"{best.number(*quality.keys):.1f} against {quality.dense:.1f}"
        sentence = f"{best.label} keeps the dense model's {quality.name} ({values}), {_savings(dense, best)}."
    else:
        best = min(saving, key=lambda b: _loss(b, quality))
        lost = f"{_loss(best, quality):.1f} points of {quality.name}"
        sentence = f"{best.label} loses {lost}, {_savings(dense, best)}. No other budget loses less."
    return Advice(best, sentence, tuple(_tiles(dense, best, quality)))


def _quality(dense: Budget, budgets: Sequence[Budget]) -> Quality | None:
    """AP50, or where nothing is annotated the agreement with the dense model."""
    ap50 = dense.number(*AP50)
    if ap50 is not None:
        return Quality("AP50", AP50, ap50)
    if any(b.number(*AGREEMENT) is not None for b in budgets):
        return Quality("agreement", AGREEMENT, 100.0)
    return None


def _loss(budget: Budget, quality: Quality) -> float:
    return quality.dense - (budget.number(*quality.keys) or 0.0)


def _ratio(dense: Budget, budget: Budget, keys: tuple[str, ...]) -> float:
    """How many times less a budget takes; 0 where that was not measured."""
    full, less = dense.number(*keys), budget.number(*keys)
    return full / less if full and less else 0.0


def _savings(dense: Budget, budget: Budget) -> str:
    """ "runs 2.1 times fewer operations and is 1.3 times faster per frame"."""
    operations = f"runs {_ratio(dense, budget, TOTAL_GFLOPS):.1f} times fewer operations"
    speed = _ratio(dense, budget, SECONDS)
    if not speed:
        return operations
    if speed >= SAME_SPEED:
        return f"{operations} and is {speed:.1f} times faster per frame"
    slower = f"{1 / speed:.1f} times slower" if speed < 1 / SAME_SPEED else "no faster"
    return f"{operations}, but is {slower} per frame"


def _tiles(dense: Budget, budget: Budget, quality: Quality) -> list[tuple[str, str]]:
    tiles = [
        (f"{quality.dense:.1f}", f"{quality.name} of the dense model"),
        (f"{budget.number(*quality.keys):.1f}", f"{quality.name} at {budget.label}"),
    ]
    backbone, total = _ratio(dense, budget, BACKBONE_GFLOPS), _ratio(dense, budget, TOTAL_GFLOPS)
    more = f" (backbone: {backbone:.1f}×)" if backbone else ""
    tiles.append((f"{total:.1f}×", f"fewer GFlops per frame at {budget.label}{more}"))
    speed = _ratio(dense, budget, SECONDS)
    if speed:
        times = f"{1000 * dense.number(*SECONDS):.0f} ms dense, {1000 * budget.number(*SECONDS):.0f} ms"
        factor, word = (speed, "faster") if speed >= 1 else (1 / speed, "slower")
        tiles.append((f"{factor:.1f}×", f"{word} per frame: {times} at {budget.label}"))
    return tiles
