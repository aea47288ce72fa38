"""Tables of the report: a row per metric, a column per budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .evaluation_folder import Budget
from .markup import Markup, join, tag

SUMMARY = (
    ("AP", 2, ("bbox", "AP")),
    ("AP50", 2, ("bbox", "AP50")),
    ("VID-AP50", 2, ("bbox", "VID-AP50")),
    ("agreement", 2, ("agreement", "VID-AP50")),
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


@dataclass(frozen=True)
class Rows:
    """Some metrics of a group in results.json, a row for each."""

    heading: str
    group: str
    prefix: str
    """Of the metrics' names; rows are called by the rest of them."""
    shares: str = ""
    """Prefix of metrics of the same group that tell the percentage of objects that a row is about."""
    only: frozenset[str] | None = None
    """Rests of the names that are shown; None shows all."""

    def names(self, budgets: Sequence[Budget]) -> list[str]:
        """The rests of the names that any budget has, in their order."""
        found = dict.fromkeys(name for budget in budgets for name in budget.group(self.group))
        rests = [name[len(self.prefix) :] for name in found if name.startswith(self.prefix)]
        return [rest for rest in rests if self.only is None or rest in self.only]

    def label(self, rest: str, budgets: Sequence[Budget]) -> Markup:
        """What a row is called."""
        shares = (budget.number(self.group, self.shares + rest) for budget in budgets) if self.shares else ()
        share = next((value for value in shares if value is not None), None)
        note = None if share is None else tag("small", None, f"{share:.1f} % of objects")
        return join(tag("bdi", None, rest), note)


def metric_table(budgets: Sequence[Budget], colors: dict[str, str], parts: Sequence[Rows]) -> Markup | None:
    """All rows of some parts under their headings; None if no budget has any."""
    written = []
    for part in parts:
        names = part.names(budgets)
        if names:
            written.append(tag("tr", None, tag("td", {"class": "group", "colspan": len(budgets) + 1}, part.heading)))
        for rest in names:
            values = [number(budget.number(part.group, part.prefix + rest), 2) for budget in budgets]
            label = tag("td", None, part.label(rest, budgets))
            written.append(tag("tr", None, label, *(tag("td", None, value) for value in values)))
    if not written:
        return None
    head = [tag("th", None, "percent")]
    head += [tag("th", None, swatch(colors[b.policy], b.is_dense), b.label) for b in budgets]
    return _table(head, written)


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
