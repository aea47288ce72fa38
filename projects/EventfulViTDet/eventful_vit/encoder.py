"""The blocks of an eventful model, one after the other: densely, on changed tokens, or by repeating a recorded
frame."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from . import ops
from .block import BlockSpec, EventfulBlock, EventfulOptions
from .frame import Frame, FrameTrace, GateBudget
from .ops.cpu.library import make_replay
from .ops.tape import Tape, recording
from .policies import Policy

TAPED_VALUES = 2**18
"""Most values (tokens x channels x streams) of a frame that is recorded. Small frames gain most
(docs/performance.md)."""
MAX_TAPES = 4
"""Tapes kept per state: one for flushes and one or two for budgets, unless these change a lot."""

logger = logging.getLogger(__name__)

Block = Callable[[Tensor, Callable[[BlockSpec, Tensor], Tensor]], Tensor]
"""A block as the encoder calls it: with its tokens and a way to run a specification on them. A module, so that hooks on
a block see its tokens, or a function."""


@dataclass
class TapedFrame:
    """A frame that was recorded, with the memory that it works on."""

    tape: Tape
    source: Tensor
    """Where its tokens have to be, (B, N, D)."""
    numbers: TapedBudget
    output: Tensor | None = None
    """Where the result will be, (B, N, D)."""
    trace: FrameTrace | None = None


class TapedBudget:
    """The budgets of all gates in memory that a recorded frame reads."""

    def __init__(self, gates: tuple[str, ...], streams: int, capacity: int) -> None:
        self._written: tuple | None = None
        self.flush = torch.zeros(streams, dtype=torch.uint8)
        self.counts = torch.zeros(len(gates), dtype=torch.int64)
        self.thresholds = torch.zeros(len(gates))
        self.gates = {
            name: GateBudget(count, threshold, self.flush, capacity, is_full=False)
            for name, count, threshold in zip(gates, self.counts.unbind(), self.thresholds.unbind())
        }

    def set(self, limits: list[tuple[int, float]], flush: tuple[bool, ...]) -> None:
        """Write the next frame's numbers."""
        if self._written == (limits, flush):
            return
        self._written = (limits, flush)
        counts, thresholds = zip(*limits)
        self.flush.copy_(torch.tensor(flush))
        self.counts.copy_(torch.tensor(counts))
        self.thresholds.copy_(torch.tensor(thresholds))


class EventfulEncoder:
    """Runs a model's blocks."""

    def __init__(self, depth: int, options: EventfulOptions) -> None:
        """
        Args:
            depth: number of blocks, at most.
        """
        self._runners = [EventfulBlock(f"blocks.{i}", options) for i in range(depth)]
        gates = [gate for runner in self._runners for gate in runner.gates]
        self.gate_names = tuple(gate.name for gate in gates)
        """The gates in the order of their work, such as `blocks.0.qkv`."""
        self._can_tape = all(gate.can_take_numbers() for gate in gates)

    def dense(self, blocks: Sequence[Block], x: Tensor, grid: tuple[int, int], trace: FrameTrace | None) -> Tensor:
        """All tokens (B, N, D) -> (B, N, D). `trace`, if given, learns what was executed."""
        for block, runner in zip(blocks, self._runners):
            x = block(x, partial(runner.dense, grid=grid, trace=trace))
        return x

    def eventful(self, blocks: Sequence[Block], x: Tensor, frame: Frame, observed: bool) -> Tensor:
        """Changed tokens of (B, N, D) -> (B, N, D), updating the frame's state. x may be overwritten.

        Args:
            observed: whether somebody wants to see the modules at work.
        """
        limits = self._limits(x, frame) if self._can_tape and not observed else None
        if limits is None:
            return self._run(blocks, x, frame, keep=observed)
        key = (x.shape, frame.trace.grid, self._capacity(limits, x, frame))
        tapes = frame.state.tapes
        taped = tapes.get(key)
        if key not in tapes or (taped is not None and taped.tape.refusal):
            output = self._run(blocks, x, frame)
        elif taped is None:  # a kind of frame is recorded when it comes a second time
            taped, output = self._record(blocks, x, frame, limits, key[-1])
        else:
            output = self._repeat(taped, x, frame, limits)
        tapes = frame.state.tapes  # new ones, if state had to be allocated
        tapes.pop(key, None)
        tapes[key] = taped  # now the last one
        while len(tapes) > MAX_TAPES:
            tapes.pop(next(iter(tapes)))
        return output

    def eventful_block(self, number: int, spec: BlockSpec, x: Tensor, frame: Frame) -> Tensor:
        """One block, for models that call their blocks themselves: changed tokens of (B, N, D) -> (B, N, D). x may be
        overwritten."""
        return self._runners[number].eventful(spec, x, frame.trace.grid, frame)

    def _run(self, blocks: Sequence[Block], x: Tensor, frame: Frame, keep: bool = False) -> Tensor:
        """`keep`: what a hook sees of a block stays as it is."""
        for block, runner in zip(blocks, self._runners):
            x = block(x.clone() if keep else x, partial(runner.eventful, grid=frame.trace.grid, frame=frame))
        return x

    def _limits(self, x: Tensor, frame: Frame) -> list[tuple[int, float]] | None:
        """The numbers of each gate's policy, where such a frame could be recorded."""
        if x.device.type != "cpu" or x.numel() > TAPED_VALUES or x.dtype is not torch.float32:
            return None
        if _get_current_dispatch_mode() is not None or torch.is_autocast_enabled("cpu"):
            return None
        tokens, policy = x.shape[1], frame.policy
        if type(policy).for_gate is Policy.for_gate:  # the same for all
            limits = policy.limits(tokens)
            return None if limits is None else [limits] * len(self.gate_names)
        limits = [policy.for_gate(name, tokens).limits(tokens) for name in self.gate_names]
        return None if None in limits else limits

    @staticmethod
    def _capacity(limits: list[tuple[int, float]], x: Tensor, frame: Frame) -> int:
        """Room for each gate's tokens: a power of two, so that a tape serves many budgets, or all tokens."""
        streams, tokens, _ = x.shape
        most = max(count for count, _ in limits)
        return streams * (tokens if any(frame.flush) else min(tokens, 1 << max(most - 1, 0).bit_length()))

    def _record(
        self, blocks: Sequence[Block], x: Tensor, frame: Frame, limits: list[tuple[int, float]], capacity: int
    ) -> tuple[TapedFrame, Tensor]:
        taped = TapedFrame(Tape(), x.clone(), TapedBudget(self.gate_names, len(x), capacity))
        taped.numbers.set(limits, frame.flush)
        with recording(taped.tape):
            taped.output = self._run(blocks, taped.source, replace(frame, budget=taped.numbers.gates))
        taped.trace = frame.trace
        if taped.tape.refusal is None:
            taped.tape.finish(make_replay)
        else:
            logger.debug("frames of %s tokens are not repeated from a tape: %s", tuple(x.shape), taped.tape.refusal)
        return taped, taped.output.clone()

    @staticmethod
    def _repeat(taped: TapedFrame, x: Tensor, frame: Frame, limits: list[tuple[int, float]]) -> Tensor:
        taped.numbers.set(limits, frame.flush)
        _copy(x, taped.source)
        taped.tape.replay()
        frame.trace.gates, frame.trace.blocks = taped.trace.gates, taped.trace.blocks
        return _copy(taped.output, torch.empty_like(taped.output))


def _copy(x: Tensor, to: Tensor) -> Tensor:
    """Copy tokens (B, N, D) without starting threads for it."""
    ops.store(to, None, x.flatten(0, 1), None)
    return to
