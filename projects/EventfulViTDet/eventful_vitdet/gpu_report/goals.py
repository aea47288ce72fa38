"""The goals: what a later frame of ViTDet-B is to cost on an H100 or H200."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """A bound on one measured quantity."""

    name: str
    quantity: str
    """Its key among the measured quantities."""
    bound: float
    unit: str
    at_most: bool

    def row(self, measured: Mapping[str, float], reason: str) -> dict:
        """The goal beside what was measured, or beside the reason why it was not."""
        value = measured.get(self.quantity)
        met = None if value is None else (value <= self.bound if self.at_most else value >= self.bound)
        shown = {"name": self.name, "goal": f"{'<=' if self.at_most else '>='} {self.bound:g} {self.unit}".strip()}
        return {**shown, "measured": value, "unit": self.unit, "met": met, "reason": reason if value is None else None}


def _milliseconds(name: str, quantity: str, bound: float) -> Goal:
    return Goal(name, quantity, bound, "ms", True)


def _ratio(name: str, quantity: str, bound: float) -> Goal:
    return Goal(name, quantity, bound, "x", False)


GOALS = (
    _milliseconds("1024 px, bfloat16, backbone: dense", "1024 dense ms", 4.5),
    _milliseconds("1024 px, bfloat16, backbone: r = 512", "1024 r=512 ms", 2.0),
    _milliseconds("1024 px, bfloat16, backbone: r = 256", "1024 r=256 ms", 1.5),
    _milliseconds("672 px, bfloat16, backbone: dense", "672 dense ms", 2.2),
    _milliseconds("672 px, bfloat16, backbone: r = 256", "672 r=256 ms", 1.1),
    _ratio("1024 px, bfloat16, 16 streams, r = 512: dense / eventful", "16 streams r=512 ratio", 3.0),
    _ratio("1024 px, whole detector, r = 512: dense / eventful", "detector r=512 ratio", 1.8),
    _ratio("1024 px, float32 without TF32, r = 512: dense / eventful", "float32 r=512 ratio", 3.0),
    Goal("1024 px, bfloat16: state per stream", "1024 state GB", 0.75, "GB", True),
)


def goal_rows(measured: Mapping[str, float], reason: str, detector_reason: str | None = None) -> list[dict]:
    """A row for every goal, with the reason why it was not measured; that of the whole detector may be another one."""
    of_detector = detector_reason or reason
    return [goal.row(measured, of_detector if goal.quantity.startswith("detector") else reason) for goal in GOALS]
