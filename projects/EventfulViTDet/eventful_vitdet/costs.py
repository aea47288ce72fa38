"""What frames cost: operations (MACs, as exact integers) and seconds, summed over a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from eventful_vit.cost import BACKBONE_CATEGORIES, CATEGORIES

from .structures import MACS_PER_GFLOP, FrameCost


@dataclass
class CostSums:
    """Sums over the frames of finished videos, flush frames and later frames apart."""

    frames: Counter = field(default_factory=Counter)
    macs: dict[bool, Counter] = field(default_factory=lambda: {True: Counter(), False: Counter()})
    backbone_seconds: float = 0.0
    total_seconds: float = 0.0
    videos: int = 0

    def add_video(
        self, flushed: np.ndarray, macs: np.ndarray, backbone_seconds: np.ndarray, total_seconds: np.ndarray
    ) -> None:
        """Add a finished video's F frames; their operations as integers, so that neither order nor grouping matters.

        Args:
            flushed: (F,) bool: computed in full, at the start of a sequence.
            macs: (F, C) int64, a column for each of `eventful_vit.cost.CATEGORIES`.
            backbone_seconds: (F,).
            total_seconds: (F,).
        """
        self.videos += 1
        for kind in (True, False):
            rows = flushed == kind
            self.frames[kind] += int(rows.sum())
            sums = (sum(column) for column in macs[rows].T.tolist())
            self.macs[kind].update(dict(zip(CATEGORIES, sums)))
        self.backbone_seconds += float(backbone_seconds.sum())
        self.total_seconds += float(total_seconds.sum())

    def add_frame(self, cost: FrameCost) -> None:
        """Add one frame of a video that is not over."""
        self.frames[cost.flushed] += 1
        self.macs[cost.flushed].update(cost.macs)
        self.backbone_seconds += cost.backbone_seconds
        self.total_seconds += cost.total_seconds

    @property
    def num_frames(self) -> int:
        """Frames of both kinds."""
        return sum(self.frames.values())

    def gflops_per_frame(self) -> dict[str, dict]:
        """{"backbone": {"flush", "later", "mean", "by_category"}, "total": {...}}, in GFlops (10^9 MACs).

        `backbone` is the paper's figure, position encoding and blocks; `total` is everything. None where
        there was no frame of that kind.
        """
        return {"backbone": self._gflops(BACKBONE_CATEGORIES), "total": self._gflops(CATEGORIES)}

    def seconds_per_frame(self) -> dict[str, float | None]:
        """{"backbone", "total"}: mean over all frames; None without frames."""
        n = self.num_frames
        return {
            "backbone": self.backbone_seconds / n if n else None,
            "total": self.total_seconds / n if n else None,
        }

    def _gflops(self, categories: Sequence[str]) -> dict:
        everything = self.macs[True] + self.macs[False]

        def per_frame(macs: int, frames: int) -> float | None:
            return macs / frames / MACS_PER_GFLOP if frames else None

        def of_kind(flushed: bool) -> float | None:
            return per_frame(sum(self.macs[flushed][c] for c in categories), self.frames[flushed])

        return {
            "flush": of_kind(True),
            "later": of_kind(False),
            "mean": per_frame(sum(everything[c] for c in categories), self.num_frames),
            "by_category": {c: per_frame(everything[c], self.num_frames) for c in categories},
        }
