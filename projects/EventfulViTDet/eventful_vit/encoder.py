"""The blocks of an eventful model, one after the other: densely, on changed tokens, or by repeating a recorded frame."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from .block import EventfulBlock, EventfulOptions
from .frame import Frame, FrameTrace
from .ops.cpu.library import make_replay
from .ops.tape import Tape, recording

TAPED_VALUES = 2**16
"""Most values (tokens x channels x streams) of a frame that is recorded. Small frames gain (the demo's, 41,000 values: from
2.3 to 1.2 ms), and a tape keeps all their intermediate results; frames of 200,000 values and more gain nothing."""
MAX_TAPES = 8
"""Tapes kept per state, for the budgets used last."""

logger = logging.getLogger(__name__)


@dataclass
class TapedFrame:
    """A frame that was recorded, with the memory that it works on."""

    tape: Tape
    source: Tensor
    """Where its tokens have to be, (B, N, D)."""
    output: Tensor
    """Where the result will be, (B, N, D)."""
    trace: FrameTrace


class EventfulEncoder:
    """Runs a model's blocks.

    Blocks are modules that are called with (tokens, run) and return `run(specification, tokens)`, so hooks on a block see its
    tokens.
    """

    def __init__(self, depth: int, options: EventfulOptions) -> None:
        """
        Args:
            depth: number of blocks, at most.
        """
        self._runners = [EventfulBlock(f"blocks.{i}", options) for i in range(depth)]

    @property
    def gate_names(self) -> tuple[str, ...]:
        """The gates in the order of their work, such as `blocks.0.qkv`."""
        return tuple(
            gate.name for runner in self._runners for gate in (runner.qkv_gate, runner.projection_gate, runner.mlp_gate)
        )

    def dense(
        self, blocks: Sequence[nn.Module], x: Tensor, grid: tuple[int, int], trace: FrameTrace | None
    ) -> Tensor:
        """All tokens (B, N, D) -> (B, N, D). `trace`, if given, learns what was executed."""
        for block, runner in zip(blocks, self._runners):
            x = block(x, partial(runner.dense, grid=grid, trace=trace))
        return x

    def eventful(self, blocks: Sequence[nn.Module], x: Tensor, frame: Frame, may_tape: bool) -> Tensor:
        """Changed tokens of (B, N, D) -> (B, N, D), updating the frame's state.

        Args:
            may_tape: whether nobody wants to see the modules at work.
        """
        counts = self._fixed_counts(x, frame) if may_tape else None
        if counts is None:
            return self._run(blocks, x, frame)
        key = (x.shape, frame.trace.grid, counts)
        tapes = frame.state.tapes
        if key not in tapes:  # a budget is recorded when it comes a second time
            tapes[key] = None
            return self._run(blocks, x, frame)
        taped = tapes.pop(key)
        if taped is None:
            taped, output = self._record(blocks, x, frame)
        else:
            output = self._repeat(taped, x, frame) if taped.tape.refusal is None else self._run(blocks, x, frame)
        tapes[key] = taped  # now the last one
        while len(tapes) > MAX_TAPES:
            tapes.pop(next(iter(tapes)))
        return output

    def _run(self, blocks: Sequence[nn.Module], x: Tensor, frame: Frame) -> Tensor:
        for block, runner in zip(blocks, self._runners):
            x = block(x, partial(runner.eventful, grid=frame.trace.grid, frame=frame))
        return x

    def _fixed_counts(self, x: Tensor, frame: Frame) -> tuple[int, ...] | None:
        """Tokens that each gate will select, where a frame with these sizes could be recorded."""
        if any(frame.flush) or x.device.type != "cpu" or x.numel() > TAPED_VALUES or x.dtype is not torch.float32:
            return None
        if _get_current_dispatch_mode() is not None or torch.is_autocast_enabled("cpu"):
            return None
        tokens = x.shape[1]
        counts = tuple(frame.policy.for_gate(name, tokens).fixed_count(tokens) for name in self.gate_names)
        return None if any(count is None or count >= tokens for count in counts) else counts

    def _record(self, blocks: Sequence[nn.Module], x: Tensor, frame: Frame) -> tuple[TapedFrame, Tensor]:
        tape, source = Tape(), x.clone()
        with recording(tape):
            output = self._run(blocks, source, frame)
        if tape.refusal is None:
            tape.finish(make_replay)
        else:
            logger.debug("frames of %s tokens are not repeated from a tape: %s", tuple(x.shape), tape.refusal)
        return TapedFrame(tape, source, output, frame.trace), output.clone()

    def _repeat(self, taped: TapedFrame, x: Tensor, frame: Frame) -> Tensor:
        taped.source.copy_(x)
        taped.tape.replay()
        frame.trace.gates, frame.trace.blocks = taped.trace.gates, taped.trace.blocks
        return taped.output.clone()
