"""Scene cuts, as the gates see them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from eventful_vit.frame import GateTrace

from .errors import ConfigError
from .structures import TokenGrid

CUT_PART = 0.15
"""A cut moves the median token by at least this part of the largest recent error: a flicker of all pixels is no cut."""
FORGETTING = 0.95
"""What is left of a recent frame's figure one frame later, for telling a cut from what is usual."""


class SceneCuts:
    """Notices that most of the picture was exchanged from one frame to the next.

    The first gate measures, for its own purpose, how far every token moved. This looks at the median over the tokens:
    at a cut it jumps to several times what it was in any recent frame, and to a good part of the largest error.
    """

    def __init__(self, ratio: float) -> None:
        """
        Args:
            ratio: a cut is a median error of more than this many times that of recent frames; 0 sees no cuts.
        """
        if not (ratio == 0 or 1 < ratio < math.inf):
            raise ConfigError(f"SCENE_CUT must be 0 (off) or larger than 1, found {ratio:g}")
        self.ratio = ratio
        self._usual: float | None = None  # largest median of recent frames since the last flush
        self._largest = 0.0  # largest error of recent frames

    def seen(self, gates: Mapping[str, GateTrace], grid: TokenGrid | None = None) -> bool:
        """Whether the frame that the gates saw last came after a cut; in stream 0.

        `grid` tells which tokens are padding, which never moves; without it, all are taken for the picture's.
        """
        norms = next(iter(gates.values())).norms
        if not self.ratio or norms is None or not bool(torch.isfinite(norms[0, 0])):
            self._usual = None
            return False
        errors = norms[0] if grid is None else grid.picture_part(norms[0])
        median, largest = torch.stack([errors.median(), errors.max()]).tolist()
        self._largest = max(FORGETTING * self._largest, largest)
        usual, self._usual = self._usual, max(FORGETTING * (self._usual or 0.0), median)
        return usual is not None and median > self.ratio * usual and median > CUT_PART * self._largest
