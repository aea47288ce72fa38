"""Colours of the budgets: dense is neutral, the others run from cool (generous) to hot (frugal).

All are of middle lightness, to stand out on white and on black. A budget's colour is the variable --c of a class of its
own, as the page allows no styles on single elements.
"""

from __future__ import annotations

from collections.abc import Sequence

from .evaluation_folder import Budget

DENSE_COLOR = "var(--dense)"
RAMP = ((37, 99, 235), (8, 145, 178), (5, 150, 105), (202, 138, 4), (220, 38, 38))


def budget_styles(budgets: Sequence[Budget]) -> dict[str, str]:
    """The name of every policy's class."""
    return {budget.policy: f"p{index}" for index, budget in enumerate(budgets)}


def style_rules(budgets: Sequence[Budget]) -> str:
    """The style sheet of these classes."""
    styles = budget_styles(budgets)
    sparse = [budget.policy for budget in budgets if not budget.is_dense]
    last = max(1, len(sparse) - 1)
    colors = {policy: _ramp(index / last) for index, policy in enumerate(sparse)}
    return "".join(f".{name} {{ --c: {colors.get(policy, DENSE_COLOR)}; }}\n" for policy, name in styles.items())


def _ramp(place: float) -> str:
    """The ramp's colour at a place from 0 to 1."""
    position = place * (len(RAMP) - 1)
    left = min(int(position), len(RAMP) - 2)
    share = position - left
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(RAMP[left], RAMP[left + 1]))
    return f"#{red:02x}{green:02x}{blue:02x}"
