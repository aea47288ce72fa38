"""Repeating a frame at once, before the host has looked at the weights.

A look at all weights and hooks takes a host about a tenth of a millisecond, in which a GPU would have nothing to do.
Where all that is quickly compared is as in the last frame, the GPU begins, and the host looks meanwhile. If it finds
that the weights changed, what the GPU computed is not used, and the frame is computed again: as a full one, which new
weights ask for in any case. So what is read has to stay in memory until then.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from torch import Tensor

from .finite_frames import FiniteAnswer
from .frame import FrameTrace
from .recorded import RecordedFrame, RecordedInput, copy_values


@dataclass(frozen=True)
class Repetition:
    """A recorded frame, from its images to its result."""

    key: Hashable
    """What its inputs have in common."""
    policy: Hashable
    """The policy's `fixed_form`; None where there is none, and for the dense model."""
    kind: RecordedFrame
    input: RecordedInput | None
    """What comes before; None: the kind takes the input itself."""
    trace: FrameTrace
    """Of the frame that is repeated."""
    weights: list[Tensor]
    """What it reads, and what is in memory as long as it is here."""

    def start(self, inputs: Tensor) -> tuple[Tensor, FiniteAnswer | None]:
        """Let the GPU compute the next frame. Returns its result, and whether it is finite, where that is asked."""
        source, answer = inputs, None
        if self.input is not None:
            source, answer = self.input.tokens, self.input.start(inputs)
        if source is not self.kind.source:
            copy_values(source, self.kind.source)
        return self.kind.repeat(), answer

    def new_trace(self) -> FrameTrace:
        """The next frame's."""
        last = self.trace
        return FrameTrace(last.flushed, last.grid, last.gates, last.blocks, [*last.layers], last.in_full)
