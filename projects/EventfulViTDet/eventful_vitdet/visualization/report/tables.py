"""Tables of the report: a row per metric, a column per budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .markup import Markup, join, tag
from .results import Budget, as_number

SUMMARY = (
    ("AP", 2, ("bbox", "AP")),
    ("AP50", 2, ("bbox", "AP50")),
    ("agreement AP50", 2, ("agreement", "AP50")),
    ("total GFlops", 3, ("gflops_per_frame", "total", "mean")),
    ("backbone GFlops", 3, ("gflops_per_frame", "backbone", "mean")),
    ("flush", 3, ("gflops_per_frame", "backbone", "flush")),
    ("later", 3, ("gflops_per_frame", "backbone", "later")),
    ("ms", 1, ("seconds_per_frame", "total")),
    ("backbone ms", 1, ("seconds_per_frame", "backbone")),
)


def summary_table(budgets: Sequence[Budget], colors: dict[str, str]) -> Markup:
    """A row per budget with its quality and its costs per frame."""
    head = [tag("th", None, "budget"), *(tag("th", None, name) for name, _, _ in SUMMARY)]
    rows = []
    for budget in budgets:
        cells = [tag("td", None, swatch(colors[budget.policy], budget.is_dense), budget.label)]
        for _, digits, keys in SUMMARY:
            value = budget.number(*keys)
            factor = 1000 if keys[0] == "seconds_per_frame" else 1
            cells.append(tag("td", None, number(None if value is None else factor * value, digits)))
        rows.append(tag("tr", None, *cells))
    return _table(head, rows)


def metric_table(
    budgets: Sequence[Budget], colors: dict[str, str], groups: dict[str, tuple[str, Callable[[str], bool]]]
) -> Markup | None:
    """A row for every metric of some groups; None if no budget has any.

    Args:
        groups: by heading, the group in results.json and which of its metrics to show.
    """
    rows = []
    for heading, (group, shows) in groups.items():
        names = dict.fromkeys(name for budget in budgets for name in budget.group(group) if shows(name))
        if names and len(groups) > 1:
            rows.append(tag("tr", None, tag("td", {"class": "group", "colspan": len(budgets) + 1}, heading)))
        for name in names:
            values = [number(as_number(budget.group(group).get(name)), 2) for budget in budgets]
            label = tag("td", None, tag("bdi", None, name))
            rows.append(tag("tr", None, label, *(tag("td", None, value) for value in values)))
    if not rows:
        return None
    head = [tag("th", None, "percent")]
    head += [tag("th", None, swatch(colors[b.policy], b.is_dense), b.label) for b in budgets]
    return _table(head, rows)


def legend(budgets: Sequence[Budget], colors: dict[str, str]) -> Markup:
    """The colour of every budget."""
    keys = [tag("span", {"class": "key"}, swatch(colors[b.policy], b.is_dense), b.label) for b in budgets]
    return tag("div", {"class": "legend"}, *keys)


def swatch(color: str, square: bool = False) -> Markup:
    """A dot of a budget's colour."""
    return tag("span", {"class": "swatch square" if square else "swatch", "style": f"--c:{color}"})


def number(value: float | None, digits: int) -> str:
    """A number with fixed digits; a dash for none."""
    return "–" if value is None else f"{value:.{digits}f}"


def _table(head: Sequence[Markup], rows: Sequence[Markup]) -> Markup:
    table = tag("table", None, tag("thead", None, tag("tr", None, *head)), tag("tbody", None, join(*rows)))
    return tag("div", {"class": "scroll"}, table)
