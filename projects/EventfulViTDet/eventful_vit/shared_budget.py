"""A budget of operations that all gates of a model share, and frames of a video too.

Each gate has a threshold of its own. One factor for all of them follows what frames cost, so that the mean meets the
budget: where little moves, little is spent, and what is left over is there for frames and gates where much does.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .cost import OperationCounts
from .frame import FrameTrace
from .policies import PerGate, Policy, Threshold, TopFraction

AVERAGING_FRAMES = 16
"""What earlier frames left over, or took too much, is made up for over so many frames."""
RISE, FALL = 0.5, 0.25
"""Thresholds are multiplied by what a frame cost over what it should have, to the power of RISE where it cost more and
of FALL where it cost less: a debt is ended sooner than savings are spent."""
LARGEST_STEP = 2.0
"""Factor between the thresholds of two frames, at most."""
LARGEST_FACTOR = 64.0
"""Of thresholds, and its inverse the smallest: without a bound, a still video would lead to 0, from which no factor
leads back."""
MOST_TOKENS = 4.0
"""A gate updates at most so many times its usual share of a frame's tokens."""
LEAST_COST = 1e-3
"""What a frame is taken to have cost at least, as a part of the budget."""


@dataclass(frozen=True)
class Pace:
    """What a shared budget remembers of a video, or of videos side by side."""

    budget: SharedBudget
    factor: float = 1.0
    """Of all thresholds, in the next frame."""
    saved: float = 0.0
    """What earlier frames left over, in frames; negative is a debt."""


@dataclass(frozen=True)
class SharedBudget(Policy):
    """So many operations per frame on average, shared by all gates and by the frames of a video.

    A gate updates the tokens whose errors exceed its threshold, within a bound on their number. Streams of a batch are
    one to it: they have one factor, and their mean meets the budget. `calibrate(..., shared=True)` finds thresholds.
    """

    gflops: float
    """10^9 multiply-accumulates of position encoding and blocks per stream and later frame, on average, ..."""
    tokens: int
    """... of frames with so many tokens; in proportion for others."""
    thresholds: Mapping[str, float]
    """Of each gate, to begin with."""
    shares: Mapping[str, float]
    """Share of a frame's tokens that each gate usually updates. At most it updates MOST_TOKENS times as many."""

    def __post_init__(self) -> None:
        if not 0 < self.gflops < math.inf:
            raise ValueError(f"SharedBudget needs a number of GFlops above 0, got {self.gflops!r}")
        if not self.tokens >= 1:  # NaN fails this too
            raise ValueError(f"SharedBudget needs a number of tokens, 1 or more, got {self.tokens!r}")
        if not self.thresholds or set(self.thresholds) != set(self.shares):
            raise ValueError("SharedBudget needs a threshold and a share for each gate")
        for gate, threshold in self.thresholds.items():
            if not 0 <= threshold < math.inf:
                raise ValueError(f"SharedBudget needs thresholds of 0 or more, got {threshold!r} for {gate}")
            if not 0 <= self.shares[gate] <= 1:
                raise ValueError(f"SharedBudget needs shares between 0 and 1, got {self.shares[gate]!r} for {gate}")

    def __hash__(self) -> int:
        """Without the mappings, which have none."""
        return hash((self.gflops, self.tokens))

    def next(self, memory: Any, trace: FrameTrace | None) -> tuple[Policy, Pace]:
        """The thresholds of the next frame, after what the last one cost."""
        is_mine = isinstance(memory, Pace) and memory.budget == self
        pace = memory if is_mine else Pace(self)
        if is_mine and trace is not None:
            pace = self._after(pace, trace)
        return self.at(pace.factor), pace

    def _after(self, pace: Pace, trace: FrameTrace) -> Pace:
        """The pace after a frame. That of videos that all began is what it was at first."""
        later = [stream for stream, flushed in enumerate(trace.flushed) if not flushed]
        if not later:
            return Pace(self)
        counts = OperationCounts()
        counts.add_frame(trace)
        allowed = self.gflops * 1e9 * trace.blocks[0].selections[0].tokens / self.tokens
        cost = sum(counts.backbone(stream) for stream in later) / len(later) / allowed
        most = AVERAGING_FRAMES / 2
        saved = min(max(pace.saved + 1 - cost, -most), most)
        wanted = 1 + saved / AVERAGING_FRAMES
        excess = max(cost, LEAST_COST) / wanted
        step = excess ** (RISE if excess > 1 else FALL)
        factor = pace.factor * min(max(step, 1 / LARGEST_STEP), LARGEST_STEP)
        return Pace(self, min(max(factor, 1 / LARGEST_FACTOR), LARGEST_FACTOR), saved)

    def at(self, factor: float) -> PerGate:
        """The policy of a frame whose thresholds are multiplied by a factor."""
        gates: dict[str, Policy] = {
            name: Threshold(threshold * factor, min(MOST_TOKENS * self.shares[name], 1.0))
            for name, threshold in self.thresholds.items()
        }
        # What follows the last block, such as an eventful pyramid, measures errors in another scale.
        gates["*"] = TopFraction(self.shares[list(gates)[-1]])
        return PerGate(gates, str(self))

    @cached_property
    def _first(self) -> PerGate:
        """The policy of a video's first later frame."""
        return self.at(1.0)

    def for_gate(self, name: str, tokens: int) -> Policy:
        """A gate's policy where no frames follow each other, as in training with gates on."""
        return self._first.for_gate(name, tokens)

    def check(self, gates: Sequence[str]) -> None:
        self._first.check(gates)

    @cached_property
    def _title(self) -> str:
        text = json.dumps([self.gflops, self.tokens, sorted(self.thresholds.items()), sorted(self.shares.items())])
        return f"shared {self.gflops:.4g} GFlops ({hashlib.sha256(text.encode()).hexdigest()[:6]})"

    def __str__(self) -> str:
        return self._title
