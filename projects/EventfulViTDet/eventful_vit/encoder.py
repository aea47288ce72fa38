"""The blocks of an eventful model, one after the other: densely, on changed tokens, or by repeating a recorded frame
(recorded.py)."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial

import torch
from torch import Tensor, nn

from . import ops
from .block import BlockSpec, EventfulBlock, EventfulOptions
from .frame import Frame, FrameTrace
from .ops.tape import Recorder
from .policies import Policy, limits_of
from .recorded import BudgetNumbers, RecordedFrame, arithmetic, is_on_gpu, is_plain_call

TAPED_VALUES = 2**18
"""Most values (tokens x channels x streams) of a frame that is recorded on a CPU. Small frames gain most
(docs/performance.md)."""

CROSSOVER = 0.26
"""Share of a frame's tokens. On a GPU, frames with budgets from there on are computed in full: that is exact, and takes
less time than choosing so many. Measured on an H200 (`python tools/gpu_report.py --only tables`); the option
`gpu_crossover` sets another one."""

logger = logging.getLogger(__name__)

Block = Callable[[Tensor, Callable[[BlockSpec, Tensor], Tensor]], Tensor]
"""A block as the encoder calls it: with its tokens and a way to run a specification on them. A module, so that hooks on
a block see its tokens, or a function."""


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
        self._can_record = all(gate.can_take_numbers() for gate in gates)
        self._is_exact = options.attention == "exact"
        self._crossover = options.gpu_crossover

    def dense(self, blocks: Sequence[Block], x: Tensor, grid: tuple[int, int], trace: FrameTrace | None) -> Tensor:
        """All tokens (B, N, D) -> (B, N, D).

        Args:
            trace: learns what was executed, if given.
        """
        self.check_depth(blocks)
        if not torch.is_grad_enabled() and not torch.compiler.is_compiling():
            _make_room_for_kernels(x)
        for block, runner in zip(blocks, self._runners):
            x = block(x, partial(runner.dense, grid=grid, trace=trace))
        return x

    def eventful(self, blocks: Sequence[Block], x: Tensor, frame: Frame, observed: bool, stays: bool = False) -> Tensor:
        """Changed tokens of (B, N, D) -> (B, N, D), updating the frame's state. x may be overwritten.

        Args:
            observed: whether somebody wants to see the modules at work.
            stays: whether later frames have their tokens where x is (recorded.py).
        """
        self.check_depth(blocks)
        _make_room_for_kernels(x)
        if observed or not self._can_record or not frame.state.is_complete or not _can_be_recorded(x):
            return self._run(blocks, x.clone() if stays else x, frame, keep=observed)
        # On a GPU, full frames do without gates. On a CPU one tape serves all frames in which some streams flush.
        is_full = is_on_gpu(x) and all(frame.flush)
        limits = None if is_full else self._limits(frame.policy, x.shape[1])
        if limits is None and not is_full:
            return self._run(blocks, x.clone() if stays else x, frame)
        capacity = None if is_full else self._capacity(limits, x, any(frame.flush))

        def make(recorder: Recorder) -> RecordedFrame:
            numbers = None if is_full else BudgetNumbers(self.gate_names, len(x), capacity, x.device)
            return RecordedFrame(recorder, numbers)

        key, recorded = (x.shape, frame.trace.grid, capacity, arithmetic(x)), frame.state.recorded
        kind = recorded.find(key, make, x.device)
        if kind.numbers is not None and kind.recorder.refusal is None:
            kind.numbers.set(limits, frame.flush)
            frame = replace(frame, budget=kind.numbers.gates)
        result = kind.compute(x, lambda x: self._run(blocks, x, frame), frame.trace, stays)
        recorded.keep(key, kind)
        return result

    def eventful_block(self, number: int, spec: BlockSpec, x: Tensor, frame: Frame) -> Tensor:
        """One block, for models that call their blocks themselves: changed tokens of (B, N, D) -> (B, N, D). x may be
        overwritten."""
        _make_room_for_kernels(x)
        return self._runners[number].eventful(spec, x, frame.trace.grid, frame)

    def check_depth(self, blocks: Sequence) -> None:
        """Raise ValueError for blocks that were added to a model, and have no gates."""
        known = len(self._runners)
        if len(blocks) > known:
            raise ValueError(
                f"the model has {len(blocks)} blocks, and had {known} when it was made eventful; make it again, so "
                "that all of them have gates"
            )

    @staticmethod
    def check_modes(blocks: nn.ModuleList) -> None:
        """Raise ValueError for blocks with stochastic depth at work: what is kept of a branch that was dropped, or
        scaled up, would stay in the features of later frames."""
        for name, module in blocks.named_modules(prefix="blocks"):
            if hasattr(module, "specification") and module.specification().drops_branches:
                raise ValueError(
                    f"stochastic depth of {name} is in training mode while the model is in eval mode, and "
                    "cannot be served on changed tokens; call eval()"
                )

    def is_beyond_crossover(self, policy: Policy, tokens: int) -> bool:
        """Whether a GPU computes all tokens of a frame in less time than those that a policy lets through.

        Thresholds are not: how many tokens they let through is not known. Nor is anything that would compute another
        result than dense frames.
        """
        limits = self._limits(policy, tokens) if self._is_exact and self._can_record else None
        if limits is None or any(threshold > -math.inf for _, threshold in limits):
            return False
        share = CROSSOVER if self._crossover is None else self._crossover
        mean = sum(count for count, _ in limits) / len(limits)
        if mean < share * tokens:
            return False
        _say_that_frames_are_full(tokens, share)
        return True

    def write_budget(self, kind: RecordedFrame, policy: Policy) -> bool:
        """Write a policy's numbers where a recorded frame on a GPU, without flushes, reads them.

        Returns:
            False, and nothing is written, if frames under this policy are of another kind.
        """
        streams, tokens, _ = kind.output.shape
        is_full = self.is_beyond_crossover(policy, tokens)
        if is_full or kind.numbers is None:
            return is_full and kind.numbers is None
        limits = self._limits(policy, tokens)
        if limits is None or self._capacity(limits, kind.output, False) != kind.numbers.capacity:
            return False
        kind.numbers.set(limits, (False,) * streams)
        return True

    def _run(self, blocks: Sequence[Block], x: Tensor, frame: Frame, keep: bool = False) -> Tensor:
        """`keep`: what a hook sees of a block stays as it is."""
        for block, runner in zip(blocks, self._runners):
            x = block(x.clone() if keep else x, partial(runner.eventful, grid=frame.trace.grid, frame=frame))
        return x

    def _limits(self, policy: Policy, tokens: int) -> list[tuple[int, float]] | None:
        """The two numbers of each gate's policy; None if one of them is not of this kind."""
        if type(policy).for_gate is Policy.for_gate:  # the same for all
            limits = limits_of(policy, tokens)
            return None if limits is None else [limits] * len(self.gate_names)
        limits = [limits_of(policy.for_gate(name, tokens), tokens) for name in self.gate_names]
        return None if None in limits else limits

    @staticmethod
    def _capacity(limits: list[tuple[int, float]], x: Tensor, flush: bool) -> int:
        """Room for each gate's tokens: a power of two, so that a recorded frame serves many budgets, or all tokens."""
        streams, tokens, _ = x.shape
        most = max(count for count, _ in limits)
        return streams * (tokens if flush else min(tokens, 1 << max(most - 1, 0).bit_length()))


@cache
def _say_that_frames_are_full(tokens: int, share: float) -> None:
    logger.info(
        "GPU: frames of %d tokens are computed in full where a budget lets %d or more of them through, which is faster "
        "(MODEL.EVENTFUL.GPU_CROSSOVER, gpu_crossover in Python, is %.3g)",
        tokens,
        math.ceil(share * tokens),
        share,
    )


def _make_room_for_kernels(x: Tensor) -> None:
    """Let no thread wait busily for PyTorch's next operation while a CPU's kernels work."""
    if x.device.type == "cpu" and ops.cpu.available():
        ops.cpu.end_waiting_threads()


def _can_be_recorded(x: Tensor) -> bool:
    """Whether frames of such tokens can be recorded, and gain from it."""
    if is_on_gpu(x):
        possible = x.dtype in (torch.float32, torch.float16, torch.bfloat16)
    else:
        possible = x.device.type == "cpu" and x.numel() <= TAPED_VALUES and x.dtype is torch.float32
    return possible and is_plain_call(x)
