"""Frames that are recorded once and then repeated, whatever their content and budget.

In a small model on a CPU, and in any model on a GPU, Python takes longer to reach the next kernel than a kernel takes.
The kernels of a frame do not depend on what it shows, and its budgets are numbers in memory, so it can be repeated:
from a tape on a CPU (ops/tape.py), as a CUDA graph on a GPU (ops/gpu/graph.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from . import ops
from .frame import FrameTrace, GateBudget
from .ops.cpu.library import make_replay
from .ops.gpu.graph import Graph
from .ops.tape import Recorder, Tape

Limits = list[tuple[int, float]]
"""For each gate, how many tokens at most, and above which norm."""

MAX_KINDS = 4
"""Kinds of frames kept: one for flushes and one or two for budgets, unless these change a lot."""

logger = logging.getLogger(__name__)


class BudgetNumbers:
    """The budgets of all gates in memory that a recorded frame reads."""

    def __init__(self, gates: tuple[str, ...], streams: int, capacity: int, device: torch.device) -> None:
        self._written: tuple | None = None
        self.flush = torch.zeros(streams, dtype=torch.uint8, device=device)
        self.counts = torch.zeros(len(gates), dtype=torch.int64, device=device)
        self.thresholds = torch.zeros(len(gates), device=device)
        self.gates = {
            name: GateBudget(count, threshold, self.flush, capacity, is_full=False)
            for name, count, threshold in zip(gates, self.counts.unbind(), self.thresholds.unbind())
        }

    def set(self, limits: Limits, flush: tuple[bool, ...]) -> None:
        """Write the next frame's numbers."""
        if self._written == (limits, flush):
            return
        self._written = (limits, flush)
        counts, thresholds = zip(*limits)
        for numbers, values in ((self.flush, flush), (self.counts, counts), (self.thresholds, thresholds)):
            # From pinned memory, a GPU takes them when it gets there, and nothing waits for it.
            numbers.copy_(torch.tensor(values, pin_memory=numbers.is_cuda), non_blocking=True)


@dataclass
class RecordedFrame:
    """A kind of frame, with the memory that it works on."""

    recorder: Recorder
    source: Tensor
    """Where its tokens have to be, (B, N, D)."""
    numbers: BudgetNumbers | None
    """Where its budgets have to be; None for dense frames."""
    frames: int = 0
    """How many of the kind have come."""
    output: Tensor | None = None
    """Where the result will be, (B, N, D)."""
    trace: FrameTrace | None = None

    def compute(self, x: Tensor, run: Callable[[Tensor], Tensor], trace: FrameTrace) -> Tensor:
        """The frame's result. The first one runs as usual, which prepares everything that is prepared once; the second
        one is recorded; the others repeat it.

        Args:
            x: tokens, (B, N, D).
            run: computes the result from tokens, and notes in the trace what it did.
            trace: the frame's, without its blocks.
        """
        self.frames += 1
        if self.frames == 1 or self.recorder.refusal is not None:
            return run(x)
        _copy(x, self.source)
        if self.frames > 2:
            self.recorder.replay()
            trace.gates, trace.blocks = self.trace.gates, self.trace.blocks
            return _copy(self.output, torch.empty_like(self.output))
        self.output, self.trace = self.recorder.record(lambda: self._run(run, trace)), trace
        if self.recorder.refusal is None:
            return self.output.clone()
        logger.debug("frames of %s tokens are not repeated: %s", tuple(x.shape), self.recorder.refusal)
        return self.output

    def _run(self, run: Callable[[Tensor], Tensor], trace: FrameTrace) -> Tensor:
        trace.gates.clear()  # of a recording that failed
        trace.blocks.clear()
        return run(self.source)


class RecordedFrames:
    """The kinds of frames that a state, or a dense model, has seen last."""

    def __init__(self) -> None:
        self.kinds: dict[Hashable, RecordedFrame] = {}

    def find(self, key: Hashable, make: Callable[[Recorder], RecordedFrame], device: torch.device) -> RecordedFrame:
        """The kind of a frame, taken out: `keep` it when the frame is done. That of an interrupted frame is forgotten.

        Args:
            key: all that the kernels of such frames depend on.
            make: sets memory aside for a new kind.
        """
        return self.kinds.pop(key, None) or make(self._make_recorder(device))

    def keep(self, key: Hashable, kind: RecordedFrame) -> None:
        """Keep a kind as the last one, and so many others."""
        self.kinds[key] = kind
        while len(self.kinds) > MAX_KINDS:
            self.kinds.pop(next(iter(self.kinds)))

    def clear(self) -> None:
        """Forget them, and free their memory."""
        self.kinds.clear()

    def _make_recorder(self, device: torch.device) -> Recorder:
        if device.type != "cuda":
            return Tape(make_replay)
        pools = [kind.recorder.pool for kind in self.kinds.values() if isinstance(kind.recorder, Graph)]
        return Graph(device, pools[0] if pools else None)


def _copy(x: Tensor, to: Tensor) -> Tensor:
    """Copy tokens (B, N, D) without starting PyTorch's threads for it."""
    ops.store(to, None, x.flatten(0, 1), None)
    return to
