"""What the modules of an eventful model need to know about the frame being computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from .counting import OperationCounts
from .policies import Policy


@dataclass(frozen=True)
class Step:
    """One frame of B streams."""

    policy: Policy
    flush: tuple[bool, ...]
    """For each stream, whether this frame is computed in full and sets all state."""
    counts: OperationCounts | None = None
    """Where operations are counted; None when nobody asked."""
    fixed_sizes: bool = False
    """Whether all sizes must follow from the number of selected tokens, so that the frame can be recorded."""
    unreliable: list[Tensor] | None = None
    """With fixed sizes: how many queries were left with sums that are not to be relied upon, for each part."""

    def count(self, category: str, macs: Sequence[int]) -> None:
        """Add operations, given for each stream."""
        if self.counts is not None:
            self.counts.add(category, macs)

    def count_stream(self, category: str, stream: int, macs: int) -> None:
        """Add operations of one stream."""
        if self.counts is not None:
            self.counts.add(category, [0] * stream + [macs])
