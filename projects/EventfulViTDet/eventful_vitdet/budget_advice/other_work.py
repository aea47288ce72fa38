"""How much of the machine other programs took while something was measured."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

STAT = Path("/proc/stat")
WAITING = (3, 4)
"""Columns of the cores' times in which they had nothing to do: idle, and waiting for a disk."""
KNOWN_COLUMNS = 8
"""user, nice, system, idle, iowait, irq, softirq, steal; the others are part of these."""


@dataclass(frozen=True)
class WorkSoFar:
    """Seconds of all cores until now."""

    all_cores: float
    busy: float
    own: float

    @classmethod
    def now(cls) -> WorkSoFar | None:
        """None where the system does not tell."""
        try:
            ticks = [int(word) for word in STAT.read_text().split("\n", 1)[0].split()[1 : 1 + KNOWN_COLUMNS]]
        except (OSError, ValueError):
            return None
        if len(ticks) <= max(WAITING):
            return None
        second = os.sysconf("SC_CLK_TCK")
        own = os.times()
        idle = sum(ticks[column] for column in WAITING)
        return cls(sum(ticks) / second, (sum(ticks) - idle) / second, own.user + own.system)


def share_of_others(before: WorkSoFar | None, after: WorkSoFar | None) -> float | None:
    """The share of all cores, from 0 to 1, that others worked on between two moments; None where nobody tells."""
    if before is None or after is None or after.all_cores <= before.all_cores:
        return None
    others = (after.busy - before.busy) - (after.own - before.own)
    return min(1.0, max(0.0, others / (after.all_cores - before.all_cores)))
