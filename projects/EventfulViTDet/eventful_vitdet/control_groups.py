"""What a container allows this process: cores and memory, as Linux' control groups (versions 1 and 2) limit them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

SYSTEM = Path("/")
"""Where the system's files are."""


def cpu_limit(system: Path = SYSTEM) -> float | None:
    """How many cores' worth of time this process may use, such as 1.5; None without a limit."""
    limits = []
    for folder in _folders(system, "cpu"):
        quota, period = _numbers(folder / "cpu.max") or (math.inf, 1.0)
        if math.isinf(quota):  # version 1 has a file for each; there, -1 is no limit
            quota = (_numbers(folder / "cpu.cfs_quota_us") or (math.inf,))[0]
            period = (_numbers(folder / "cpu.cfs_period_us") or (1.0,))[0]
        if 0 < quota < math.inf and period > 0:
            limits.append(quota / period)
    return min(limits, default=None)


def memory_left(system: Path = SYSTEM) -> float | None:
    """Bytes that this process may still use: what the machine has, within the limits; None where nobody tells."""
    left = []
    try:
        lines = (system / "proc/meminfo").read_text().splitlines()
        left += [1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        pass
    files = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
    for folder in _folders(system, "memory"):
        for limit, used in files:
            numbers = (_numbers(folder / limit) or (math.inf,))[0], (_numbers(folder / used) or (0.0,))[0]
            left += [] if math.isinf(numbers[0]) else [max(0.0, numbers[0] - numbers[1])]
    return min(left, default=None)


def _folders(system: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's groups, and of those that they lie in, whose limits hold too."""
    root = system / "sys/fs/cgroup"
    try:
        lines = (system / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = (line.split(":", 2) + ["", ""])[:3]
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        # In a container the path may be that of the host, of which only the container's own folder is there.
        inner = Path(group.strip("/"))
        for place in dict.fromkeys((inner, *inner.parents, Path())):
            if ".." not in place.parts and (base / place).is_dir():
                yield base / place


def _numbers(path: Path) -> tuple[float, ...] | None:
    """The numbers in a file, "max" as infinity; None where there is no such file."""
    try:
        return tuple(math.inf if word == "max" else float(word) for word in path.read_text().split()) or None
    except (OSError, ValueError):
        return None
