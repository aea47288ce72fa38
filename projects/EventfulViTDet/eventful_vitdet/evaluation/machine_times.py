"""Seconds per frame by the machine that they were measured on: those of two machines are never in one figure."""

from __future__ import annotations

from collections.abc import Sequence

from .store import VideoRecord

UNKNOWN = {"backbone": None, "total": None}


class MachineTimes:
    """Sums of seconds over the frames of finished videos, of each machine by itself."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[str, float]] = {}

    def add(self, record: VideoRecord) -> None:
        """Add the frames of a video."""
        sums = self._sums.setdefault(record.machine, {"frames": 0, "backbone": 0.0, "total": 0.0})
        sums["frames"] += len(record)
        sums["backbone"] += float(record.backbone_seconds.sum())
        sums["total"] += float(record.total_seconds.sum())

    def by_machine(self) -> dict[str, dict[str, float]]:
        """{machine: {"frames", "backbone", "total"}}, the last two in seconds per frame; most frames first."""
        ordered = sorted(self._sums.items(), key=lambda item: -item[1]["frames"])
        return {
            machine: {"frames": sums["frames"], **{part: sums[part] / sums["frames"] for part in UNKNOWN}}
            for machine, sums in ordered
        }

    def per_frame(self) -> dict[str, float | None]:
        """{"backbone", "total"}: mean over all frames; None unless one machine ran all of them."""
        machines = list(self.by_machine().values())
        return {part: machines[0][part] for part in UNKNOWN} if len(machines) == 1 else dict(UNKNOWN)


def comparable_times(results: Sequence[dict]) -> list[dict]:
    """The contents of several results.json, without seconds per frame unless one machine ran all of them."""
    if len(machines_of(results)) <= 1:
        return list(results)
    return [{**result, "seconds_per_frame": dict(UNKNOWN)} for result in results]


def machines_of(results: Sequence[dict]) -> list[str]:
    """The machines that the contents of several results.json have seconds of."""
    measured = (result.get("seconds_by_machine") for result in results)
    return list(dict.fromkeys(machine for times in measured if isinstance(times, dict) for machine in times))


def describe_times(results: Sequence[dict]) -> list[str]:
    """The seconds of several evaluations in words, a line for each and each of its machines; [] if there is but one."""
    if len(machines_of(results)) <= 1:
        return []
    return ["Seconds per frame, which were measured on different machines:"] + [
        f"{result['policy']}: backbone {times['backbone']:.4f}, total {times['total']:.4f} "
        f"({times['frames']} frames on {machine})"
        for result in results
        for machine, times in result.get("seconds_by_machine", {}).items()
    ]
