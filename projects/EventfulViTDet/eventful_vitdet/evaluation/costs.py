"""What frames cost: operations (MACs, as exact integers) and seconds, summed over a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..eventful.counting import BACKBONE_CATEGORIES, CATEGORIES

MACS_PER_GFLOP = 10**9  # the paper's "GFlops" are 10^9 multiply-accumulates


@dataclass(frozen=True)
class FrameCost:
    """
    One frame: whether it was computed in full at the start of a sequence, its MACs by category, its seconds.
    """

    flushed: bool
    macs: dict[str, int]
    backbone_seconds: float
    total_seconds: float

    @property
    def total_macs(self) -> int:
        """Everything that the frame ran."""
        return sum(self.macs.values())


@dataclass
class CostSums:
    """Sums over frames, flush frames and later frames apart."""

    frames: Counter = field(default_factory=Counter)
    macs: dict[bool, Counter] = field(default_factory=lambda: {True: Counter(), False: Counter()})
    backbone_seconds: float = 0.0
    total_seconds: float = 0.0
    videos: set = field(default_factory=set)

    def add(self, video_id: int, cost: FrameCost) -> None:
        """Add a frame of a video."""
        self.videos.add(video_id)
        self.frames[cost.flushed] += 1
        self.macs[cost.flushed].update(cost.macs)
        self.backbone_seconds += cost.backbone_seconds
        self.total_seconds += cost.total_seconds

    def merge(self, other: CostSums) -> None:
        """Add the sums of another process."""
        self.videos |= other.videos
        self.frames.update(other.frames)
        for flushed, macs in other.macs.items():
            self.macs[flushed].update(macs)
        self.backbone_seconds += other.backbone_seconds
        self.total_seconds += other.total_seconds

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
