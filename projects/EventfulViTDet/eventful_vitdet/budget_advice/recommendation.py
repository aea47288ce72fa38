"""The budget to take for a target of milliseconds."""

from __future__ import annotations

from dataclasses import dataclass

from .measured_budgets import MeasuredBudget, Measurement

LOW_AGREEMENT = 90.0
"""Below, a recommendation says that its detections want to be looked at."""


@dataclass(frozen=True)
class Recommendation:
    """What to run, and why."""

    budget: MeasuredBudget | None
    """None: nothing that was measured reaches the target."""
    reason: str
    """A sentence without its full stop."""


def recommend(measured: Measurement, target_ms: float, min_agreement: float = 0.0) -> Recommendation:
    """The dense model, where it reaches the target; else, of the budgets that do, the one that agrees with it best.

    Args:
        target_ms: milliseconds of the median frame.
        min_agreement: percent; budgets that agree less are out of the question.
    """
    dense = measured.dense
    if dense.milliseconds <= target_ms:
        return Recommendation(dense, f"no budget is needed, {_reaches(dense, target_ms)}")
    fast = [budget for budget in measured.eventful if budget.milliseconds <= target_ms]
    good = [budget for budget in fast if budget.agreement is None or budget.agreement >= min_agreement]
    if good:
        best = max(good, key=lambda budget: (_rounded_agreement(budget), -budget.milliseconds))
        if best.agreement is None:  # nothing to choose by but the amount of computation
            best = max(good, key=lambda budget: budget.r)
        return Recommendation(best, f"{_reaches(best, target_ms)}{_agrees(best)}")
    if fast:
        best = max(fast, key=lambda budget: budget.agreement)
        reason = f"no budget reaches both {target_ms:g} ms and an agreement of {min_agreement:g}: {best.name} takes "
        reason += f"{best.milliseconds:.0f} ms with {best.agreement:.1f}"
        return Recommendation(None, reason)
    fastest = measured.fastest
    name = "dense" if fastest.r is None else fastest.name
    reason = f"nothing that was measured reaches {target_ms:g} ms: {name}, the fastest, takes {_times(fastest)}"
    return Recommendation(None, reason)


def _rounded_agreement(budget: MeasuredBudget) -> float:
    """As it is shown: smaller differences are none."""
    return -1.0 if budget.agreement is None else round(budget.agreement, 1)


def _reaches(budget: MeasuredBudget, target_ms: float) -> str:
    name = "the dense model" if budget.r is None else budget.name
    close = "; too close to the target to be sure" if target_ms - budget.milliseconds < budget.uncertainty else ""
    return f"{name} takes {_times(budget)}{close}"


def _times(budget: MeasuredBudget) -> str:
    return f"{budget.milliseconds:.0f} ms (95th percentile {budget.milliseconds_95:.0f})"


def _agrees(budget: MeasuredBudget) -> str:
    if budget.agreement is None:
        return "; the dense model is sure of no detection here, so agreement is unknown"
    look = ", so look at its detections first" if budget.agreement < LOW_AGREEMENT else ""
    return f" and agrees with the dense model to {budget.agreement:.1f} percent{look}"
