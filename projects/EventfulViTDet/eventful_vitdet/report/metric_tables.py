"""Tables of the report: what stands in their cells. `templates/tables.html` writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..evaluation.results import GROUP_COLUMNS, INTERVALS, format_interval
from .evaluation_folder import AGREEMENT, AP50, BACKBONE_GFLOPS, BACKBONE_SECONDS, SECONDS, TOTAL_GFLOPS, Budget

SUMMARY = (
    ("AP", 2, ("bbox", "AP")),
    ("AP25", 2, ("bbox", "AP25")),
    ("AP50", 2, AP50),
    ("VID-AP50", 2, ("bbox", "VID-AP50")),
    *((title, 2, (group, "AP")) for group, title in GROUP_COLUMNS.items()),
    ("agreement", 2, AGREEMENT),
    ("total GFlops", 3, TOTAL_GFLOPS),
    ("backbone GFlops", 3, BACKBONE_GFLOPS),
    ("flush", 3, ("gflops_per_frame", "backbone", "flush")),
    ("later", 3, ("gflops_per_frame", "backbone", "later")),
    ("ms", 1, SECONDS),
    ("backbone ms", 1, BACKBONE_SECONDS),
)
NOT_ALWAYS = {"AP25", *GROUP_COLUMNS.values()}
"""Columns that are left out where no budget has a value."""


@dataclass(frozen=True)
class Row:
    """A row: what it is about, and its cells; without cells, a heading of the rows below it."""

    label: str
    cells: tuple[str, ...] = ()
    note: str = ""
    budget: Budget | None = None
    """If the row is a budget's."""


@dataclass(frozen=True)
class Table:
    """A table whose columns are budgets or, in the summary, metrics."""

    corner: str
    rows: tuple[Row, ...]
    metrics: tuple[str, ...] = ()
    budgets: tuple[Budget, ...] = ()


def summary_table(budgets: Sequence[Budget]) -> Table:
    """A row per budget with its quality and its costs per frame."""
    columns = [
        (name, digits, keys)
        for name, digits, keys in SUMMARY
        if name not in NOT_ALWAYS or any(budget.number(*keys) is not None for budget in budgets)
    ]
    rows = []
    for budget in budgets:
        cells = []
        for _, digits, keys in columns:
            value = budget.number(*keys)
            factor = 1000 if keys[0] == "seconds_per_frame" else 1
            cells.append(number(None if value is None else factor * value, digits))
        rows.append(Row(budget.label, tuple(cells), budget=budget))
    return Table("budget", tuple(rows), metrics=tuple(name for name, _, _ in columns))


def interval_table(budgets: Sequence[Budget]) -> Table | None:
    """The 95 % intervals over videos, a row per budget; None where there are none."""

    def cell(budget: Budget, *ends: str) -> str:
        return format_interval(*(budget.number("intervals", end) for end in ends))

    known = [(low, high, title) for low, high, title in INTERVALS if any(cell(b, low, high) for b in budgets)]
    rows = (Row(b.label, tuple(cell(b, low, high) or "–" for low, high, _ in known), budget=b) for b in budgets)
    metrics = tuple(title for _, _, title in known)
    return Table("95 % interval over videos", tuple(rows), metrics=metrics) if known else None


@dataclass(frozen=True)
class MetricRows:
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

    def note(self, rest: str, budgets: Sequence[Budget]) -> str:
        """How many of the objects a row is about."""
        shares = (budget.number(self.group, self.shares + rest) for budget in budgets) if self.shares else ()
        share = next((value for value in shares if value is not None), None)
        return "" if share is None else f"{share:.1f} % of objects"

    def rows(self, budgets: Sequence[Budget]) -> list[Row]:
        """The heading and the rows; nothing if no budget has any."""
        names = self.names(budgets)
        rows = [Row(self.heading)] if names else []
        for rest in names:
            cells = tuple(number(budget.number(self.group, self.prefix + rest), 2) for budget in budgets)
            rows.append(Row(rest, cells, self.note(rest, budgets)))
        return rows


def metric_table(budgets: Sequence[Budget], parts: Sequence[MetricRows]) -> Table | None:
    """All rows of some parts under their headings; None if no budget has any."""
    rows = tuple(row for part in parts for row in part.rows(budgets))
    return Table("percent", rows, budgets=tuple(budgets)) if rows else None


def class_table(budgets: Sequence[Budget]) -> Table | None:
    """AP per class."""
    known = frozenset(name[3:] for b in budgets for name in b.group("bbox") if name.startswith("AP-"))
    parts = (
        MetricRows("AP", "bbox", "AP-"),
        *(MetricRows(title, group, "AP-", only=known) for group, title in GROUP_COLUMNS.items()),
        MetricRows("VID-AP50", "bbox", "VID-AP50-", only=known),
        MetricRows("agreement with dense, VID-AP50", "agreement", "VID-AP50-", only=known),
    )
    return metric_table(budgets, parts)


def motion_table(budgets: Sequence[Budget]) -> Table | None:
    """Metrics by motion speed, object size and time since the last full frame."""
    age = "objects-age-"
    parts = (
        MetricRows("by motion speed, VID-AP50", "motion", "VID-AP50-", "objects-"),
        MetricRows("by object size, VID-AP50", "size", "VID-AP50-", "objects-"),
        MetricRows("by frames since the last full one, VID-AP50", "stability", "VID-AP50-age-", age),
        MetricRows("agreement by frames since the last full one, VID-AP50", "agreement", "VID-AP50-age-", age),
    )
    return metric_table(budgets, parts)


def number(value: float | None, digits: int) -> str:
    """A number with fixed digits; a dash for none."""
    return "–" if value is None else f"{value:.{digits}f}"
