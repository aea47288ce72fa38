"""What was measured of a budget, and of all of them on one video."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..budgets import DENSE
from ..errors import ConfigError
from ..structures import FrameCost


@dataclass(frozen=True)
class MeasuredBudget:
    """A budget's later frames; those computed in full are apart."""

    r: int | None
    """Tokens per gate; None: the dense model."""
    milliseconds: float
    """Median."""
    milliseconds_95: float
    """95th percentile."""
    uncertainty: float
    """Milliseconds that the median may well be off by, up or down, as far as the frames' spread tells."""
    spread: float
    """From the 10th to the 90th percentile, as a part of the median."""
    backbone_milliseconds: float
    """Median of the Transformer's part."""
    gflops: float
    """Mean per frame, of everything that ran."""
    agreement: float | None
    """VID-AP50 with the dense model's detections as the objects, percent; None of the dense model itself, and where it
    is sure of nothing."""
    state_bytes: int
    timed_frames: int
    full_milliseconds: float | None
    """Median of timed frames that were computed in full, as after a scene cut; None where there was none."""

    @property
    def name(self) -> str:
        return DENSE if self.r is None else f"r = {self.r}"


@dataclass(frozen=True)
class Measurement:
    """All that was measured on a video."""

    budgets: list[MeasuredBudget]
    """The dense model first, then by falling r."""
    tokens: int
    """Of a frame."""
    picture: tuple[int, int]
    """Height and width in pixels of a frame as the model sees it."""
    frames: int
    """Frames that every budget has run on."""
    interrupted: bool
    others: float | None
    """Share of the machine's cores, from 0 to 1, that other programs took meanwhile."""
    device: str
    threads: int

    @property
    def dense(self) -> MeasuredBudget:
        return self.budgets[0]

    @property
    def eventful(self) -> list[MeasuredBudget]:
        return self.budgets[1:]

    @property
    def fastest(self) -> MeasuredBudget:
        """The fastest of all, the dense model included."""
        return min(self.budgets, key=lambda budget: budget.milliseconds)


def summarise(
    r: int | None, costs: Sequence[FrameCost], agreement: float | None = None, state_bytes: int = 0
) -> MeasuredBudget:
    """Sum up the timed frames of a budget. Raises ConfigError if all of them were computed in full."""
    later = [cost for cost in costs if not cost.flushed]
    if not later:
        raise ConfigError("every frame begins a sequence, or follows a scene cut, so no budget had any effect")
    milliseconds = 1000 * np.array([cost.total_seconds for cost in later])
    low, quarter, median, upper_quarter, high, highest = np.percentile(milliseconds, (10, 25, 50, 75, 90, 95)).tolist()
    full = [1000 * cost.total_seconds for cost in costs if cost.flushed]
    return MeasuredBudget(
        r=r,
        milliseconds=median,
        milliseconds_95=highest,
        uncertainty=1.57 * (upper_quarter - quarter) / math.sqrt(len(later)),  # the notches of a box plot: 95 percent
        spread=(high - low) / median if median else 0.0,
        backbone_milliseconds=float(np.median([1000 * cost.backbone_seconds for cost in later])),
        gflops=float(np.mean([cost.total_gflops for cost in later])),
        agreement=agreement,
        state_bytes=state_bytes,
        timed_frames=len(later),
        full_milliseconds=float(np.median(full)) if full else None,
    )
