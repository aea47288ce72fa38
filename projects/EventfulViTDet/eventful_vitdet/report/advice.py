"""What the evaluation says to somebody who has to choose a budget: the report's headline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

from .evaluation_folder import AGREEMENT, AP50, BACKBONE_GFLOPS, BACKBONE_SECONDS, SECONDS, TOTAL_GFLOPS, Budget

TOLERATED_LOSS = 1.0
"""Points of AP50 below the dense model at which a budget still counts as keeping its quality."""
SAME_SPEED = 1.05
"""Ratios of times below this one are not worth a word."""
SAME_WORK = 1.05
"""Ratio of operations up to which two runs did the same."""
DISTURBED = 1.5
"""Ratio of the times of the same work from which on something else must have run beside it."""


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
    with_times = disturbed_times(budgets) is None
    if not saving:
        return Advice(None, "No budget that was evaluated takes fewer operations than the dense model.")
    keeping = [b for b in saving if _loss(b, quality) <= TOLERATED_LOSS]
    if keeping:
        best = min(keeping, key=lambda b: b.number(*TOTAL_GFLOPS) or 0.0)
        values = f"{best.number(*quality.keys):.1f} against {quality.dense:.1f}"
        saved = _savings(dense, best, with_times)
        sentence = f"{best.label} keeps the dense model's {quality.name} ({values}), {saved}."
    else:
        best = min(saving, key=lambda b: _loss(b, quality))
        lost = f"{_loss(best, quality):.1f} points of {quality.name}"
        sentence = f"{best.label} loses {lost}, {_savings(dense, best, with_times)}. No other budget loses less."
    return Advice(best, sentence, tuple(_tiles(dense, best, quality, with_times)))


def disturbed_times(budgets: Sequence[Budget]) -> str | None:
    """Why the times of these runs cannot be compared, in a sentence; None if nothing speaks against it.

    What follows the backbone does the same at every budget, unless the pyramid is eventful too. So its times tell
    whether the machine was the same.
    """
    rests = [(b, _rest(b, TOTAL_GFLOPS, BACKBONE_GFLOPS), _rest(b, SECONDS, BACKBONE_SECONDS)) for b in budgets]
    pairs = [
        (slow[2] / fast[2], slow[0], fast[0])
        for slow, fast in permutations([rest for rest in rests if rest[1] > 0 and rest[2] > 0], 2)
        if max(slow[1], fast[1]) <= SAME_WORK * min(slow[1], fast[1])
    ]
    ratio, slow, fast = max(pairs, key=lambda pair: pair[0], default=(0.0, None, None))
    if ratio < DISTURBED:
        return None
    return (
        f"The milliseconds cannot be compared: what follows the backbone does the same work at every budget, and took "
        f"{ratio:.1f} times as long at {slow.label} as at {fast.label}. The machine had something else to do, or was "
        "throttled. Measure again when it is quiet; eventful-vitdet advise takes the budgets in turn."
    )


def _rest(budget: Budget, all_of_it: tuple[str, ...], backbone: tuple[str, ...]) -> float:
    """What is not the backbone's; 0 where that was not measured."""
    whole, part = budget.number(*all_of_it), budget.number(*backbone)
    return 0.0 if whole is None or part is None else whole - part


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


def _savings(dense: Budget, budget: Budget, with_times: bool) -> str:
    """ "runs 2.1 times fewer operations and is 1.3 times faster per frame"."""
    operations = f"runs {_ratio(dense, budget, TOTAL_GFLOPS):.1f} times fewer operations"
    speed = _ratio(dense, budget, SECONDS)
    if not speed or not with_times:
        return operations
    if speed >= SAME_SPEED:
        return f"{operations} and is {speed:.1f} times faster per frame"
    slower = f"{1 / speed:.1f} times slower" if speed < 1 / SAME_SPEED else "no faster"
    return f"{operations}, but is {slower} per frame"


def _tiles(dense: Budget, budget: Budget, quality: Quality, with_times: bool) -> list[tuple[str, str]]:
    tiles = [
        (f"{quality.dense:.1f}", f"{quality.name} of the dense model"),
        (f"{budget.number(*quality.keys):.1f}", f"{quality.name} at {budget.label}"),
    ]
    backbone, total = _ratio(dense, budget, BACKBONE_GFLOPS), _ratio(dense, budget, TOTAL_GFLOPS)
    more = f" (backbone: {backbone:.1f}×)" if backbone else ""
    tiles.append((f"{total:.1f}×", f"fewer GFlops per frame at {budget.label}{more}"))
    speed = _ratio(dense, budget, SECONDS)
    if speed and with_times:
        times = f"{1000 * dense.number(*SECONDS):.0f} ms dense, {1000 * budget.number(*SECONDS):.0f} ms"
        factor, word = (speed, "faster") if speed >= 1 else (1 / speed, "slower")
        tiles.append((f"{factor:.1f}×", f"{word} per frame: {times} at {budget.label}"))
    return tiles
