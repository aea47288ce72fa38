"""Tables in markdown, aligned to be read as plain text too."""

from __future__ import annotations

from collections.abc import Sequence


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table with aligned columns, the first to the left and the others to the right.

    A `|` in a cell, as classes may have it in their names, does not end the cell.
    """
    header, *rows = ([str(cell).replace("|", "\\|") for cell in row] for row in (header, *rows))
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths))]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * w if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def format_number(value: float | None, digits: int) -> str:
    """A cell: a number with fixed digits after the point; "-" for none."""
    return "-" if value is None else f"{value:.{digits}f}"
