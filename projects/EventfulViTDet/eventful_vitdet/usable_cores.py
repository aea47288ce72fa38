"""How many cores this process may use, on any system."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Those that the system lets this process run on; all of the machine's where the system does not tell."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux has it, macOS and Windows have not
    return len(affinity(0)) if affinity else os.cpu_count() or 1
