"""Frames that are recorded once and then repeated, whatever their content and budget.

In a small model on a CPU, and in any model on a GPU, Python takes longer to reach the next kernel than a kernel takes.
The kernels of a frame do not depend on what it shows, and its budgets are numbers in memory, so it can be repeated:
from a tape on a CPU (ops/tape.py), as a CUDA graph on a GPU (ops/gpu/graph.py).
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from . import ops
from .finite_frames import FiniteAnswer
from .frame import FrameTrace, GateBudget
from .ops import tf32
from .ops.cpu.library import make_replay
from .ops.gpu.graph import Graph, shared_pool
from .ops.tape import Recorder, Tape

if TYPE_CHECKING:
    from .repetition import Repetition
    from .streams import FrameForm

Limits = list[tuple[int, float]]
"""For each gate, how many tokens at most, and above which norm."""

MAX_KINDS = 4
"""Kinds of frames kept: one for flushes and one or two for budgets, unless these change a lot."""

logger = logging.getLogger(__name__)


class BudgetNumbers:
    """The budgets of all gates in memory that a recorded frame reads."""

    def __init__(self, gates: tuple[str, ...], streams: int, capacity: int, device: torch.device) -> None:
        """
        Args:
            capacity: room for the chosen tokens of all streams, at each gate.
        """
        self.capacity = capacity
        self._written: tuple | None = None
        sizes = [8 * len(gates), 4 * len(gates), streams]
        self._memory = torch.zeros(sum(sizes), dtype=torch.uint8, device=device)  # in one piece, for a single copy
        counts, thresholds, self.flush = self._memory.split(sizes)
        self.counts, self.thresholds = counts.view(torch.int64), thresholds.view(torch.float32)
        self.gates = {
            name: GateBudget(count, threshold, self.flush, capacity, is_full=False)
            for name, count, threshold in zip(gates, self.counts.unbind(), self.thresholds.unbind())
        }

    def set(self, limits: Limits, flush: tuple[bool, ...]) -> None:
        """Write the next frame's numbers."""
        if self._written == (limits, flush):
            return
        self._written = None  # if this is interrupted
        counts, thresholds = zip(*limits)
        content = bytearray(array("q", counts).tobytes() + array("f", thresholds).tobytes() + bytes(flush))
        numbers = torch.frombuffer(content, dtype=torch.uint8)
        # From pinned memory, a GPU takes them when it gets there, and nothing waits for it. PyTorch keeps that memory
        # until then.
        self._memory.copy_(numbers.pin_memory() if self._memory.is_cuda else numbers, non_blocking=True)
        self._written = (limits, flush)


@dataclass
class RecordedFrame:
    """A kind of frame, with the memory that it works on."""

    recorder: Recorder
    numbers: BudgetNumbers | None
    """Where its budgets have to be; None for dense frames, and for those of which everything is computed."""
    frames: int = 0
    """How many of the kind have come."""
    source: Tensor | None = None
    """Where its input has to be."""
    output: Tensor | None = None
    """Where the result will be, (B, N, D)."""
    trace: FrameTrace | None = None

    def compute(self, x: Tensor, run: Callable[[Tensor], Tensor], trace: FrameTrace, stays: bool = False) -> Tensor:
        """The frame's result. The first one runs as usual, which prepares everything that is prepared once; the second
        one is recorded; the others repeat it.

        Args:
            x: its input: tokens (B, N, D), or images (B, C, H, W).
            run: computes the result from the input, and notes in the trace what it did.
            trace: the frame's, without its blocks.
            stays: x is memory that belongs to the same state, and the input of later frames may be there too.
        """
        self.frames += 1
        if self.frames == 1 or self.recorder.refusal is not None:
            return run(x.clone() if stays else x)  # a result may lie where its input lay
        if self.source is None:
            self.source = x if stays else torch.empty_like(x, memory_format=torch.contiguous_format)
        if self.source is not x:
            copy_values(x, self.source)
        if self.frames > 2:
            trace.gates, trace.blocks = self.trace.gates, self.trace.blocks
            return self.repeat()
        self.output, self.trace = self.recorder.record(lambda: self._run(run, trace)), trace
        if self.recorder.refusal is not None:
            logger.debug("frames of %s are not repeated: %s", tuple(x.shape), self.recorder.refusal)
        return self.output.clone()

    @property
    def is_recorded(self) -> bool:
        """Whether the next frame repeats it."""
        return self.trace is not None and self.recorder.refusal is None

    def repeat(self) -> Tensor:
        """The result of the input that lies in its place."""
        self.recorder.replay()
        return self.output.clone() if self.output.is_cuda else copy_values(self.output, torch.empty_like(self.output))

    def _run(self, run: Callable[[Tensor], Tensor], trace: FrameTrace) -> Tensor:
        trace.gates.clear()  # of a recording that failed
        trace.blocks.clear()
        return run(self.source)


class RecordedInput:
    """What a frame's input goes through before the blocks, on a GPU: from images to tokens, and whether it is finite.

    This is a graph of its own, which starts before the host has looked at the weights and prepared the blocks: the GPU
    has work meanwhile, and its answer comes before the blocks are done. If the weights turn out to have changed, its
    tokens are not used.
    """

    def __init__(self, key: Hashable, recorder: Recorder, inputs: Tensor) -> None:
        """
        Args:
            key: what such inputs have in common.
            inputs: the first of them.
        """
        self.key, self.recorder = key, recorder
        self._source = torch.empty_like(inputs, memory_format=torch.contiguous_format)
        self._finite: Tensor | None = None
        self._answer = FiniteAnswer(len(inputs), inputs.device)
        self.tokens: Tensor | None = None
        """Where the tokens will be, once it is recorded."""

    def start(self, inputs: Tensor) -> FiniteAnswer:
        """Let the GPU compute the tokens of the next frame; returns whether it is finite."""
        copy_values(inputs, self._source)
        self.recorder.replay()
        self._answer.fetch(self._finite)
        return self._answer

    def record(self, inputs: Tensor, embed: Callable[[Tensor], Tensor], weights: Iterable[Tensor]) -> Tensor:
        """The tokens of a frame, which is recorded.

        Args:
            embed: computes tokens from an input.
            weights: what it may read. It stays in memory until this is dropped, since a graph that started too early
                still reads it.
        """
        self.recorder.held = [weight.detach() for weight in weights]
        copy_values(inputs, self._source)

        def run() -> Tensor:
            self._finite = ops.finite(self._source)
            return embed(self._source)

        tokens = self.recorder.record(run)
        if self.recorder.refusal is None:
            self.tokens = tokens
        else:
            logger.debug("inputs of %s are not repeated: %s", tuple(inputs.shape), self.recorder.refusal)
        return tokens


class RecordedFrames:
    """The kinds of frames that a state, or a dense model, has seen last."""

    def __init__(self) -> None:
        self.kinds: dict[Hashable, RecordedFrame] = {}
        self.input: RecordedInput | None = None
        """What comes before the blocks, whatever the kind of the frame."""
        self.last: RecordedFrame | None = None
        """The kind kept last."""
        self.repetition: Repetition | None = None
        """What the next frame may repeat at once."""
        self.weights: list[Tensor] | None = None
        """The memory of the weights that recorded frames read, where it has to outlive them."""

    def find(self, key: Hashable, make: Callable[[Recorder], RecordedFrame], device: torch.device) -> RecordedFrame:
        """The kind of a frame, taken out: `keep` it when the frame is done. That of an interrupted frame is forgotten.

        Args:
            key: all that the kernels of such frames depend on.
            make: sets memory aside for a new kind.
        """
        return self.kinds.pop(key, None) or make(self._make_recorder(device))

    def keep(self, key: Hashable, kind: RecordedFrame) -> None:
        """Keep a kind as the last one, and so many others."""
        self.last = kind
        keep_last(self.kinds, key, kind)

    def find_input(self, key: Hashable, inputs: Tensor) -> RecordedInput | None:
        """What comes before the blocks for such an input, if it is recorded and may be repeated now."""
        known = self.input
        usable = known is not None and known.tokens is not None and known.key == key and is_plain_call(inputs)
        return known if usable else None

    def embed(
        self, key: Hashable, inputs: Tensor, embed: Callable[[Tensor], Tensor], weights: Callable[[], Iterable[Tensor]]
    ) -> tuple[Tensor, bool]:
        """The tokens of an input that is not repeated, and whether those of later frames will be there too.

        As with frames, the first one is computed as usual and the second one recorded (see `RecordedInput.record`).
        """
        if not (is_on_gpu(inputs) and is_plain_call(inputs)):
            return embed(inputs), False
        known = self.input
        if known is None or known.key != key:
            self.input = RecordedInput(key, self._make_recorder(inputs.device), inputs)
            return embed(inputs), False
        if known.recorder.refusal is not None:
            return embed(inputs), False
        self.input = None  # forgotten if it is interrupted
        tokens = known.record(inputs, embed, weights())
        self.input = known
        return tokens, known.recorder.refusal is None

    def clear_kinds(self) -> None:
        """Forget what points to a state's slots."""
        self.kinds.clear()
        self.last = self.repetition = None

    def clear(self) -> None:
        """Forget everything, and free its memory."""
        self.clear_kinds()
        self.input = self.weights = None

    def take_repetition(self) -> Repetition | None:
        """What the next frame may repeat at once. It is forgotten if that frame is interrupted, or another one."""
        repetition, self.repetition, self.last = self.repetition, None, None
        return repetition

    def _make_recorder(self, device: torch.device) -> Recorder:
        if device.type != "cuda":
            return Tape(make_replay)
        known = [*self.kinds.values(), *([] if self.input is None else [self.input])]
        return Graph(device, shared_pool(each.recorder for each in known if isinstance(each.recorder, Graph)))


def keep_last(kinds: dict, key: Hashable, kind: object) -> None:
    """Put a kind of frames behind those that are kept, and forget the oldest where these are too many."""
    kinds[key] = kind
    while len(kinds) > MAX_KINDS:
        kinds.pop(next(iter(kinds)))


def is_on_gpu(x: Tensor | FrameForm) -> bool:
    """Whether the work on something is started on a GPU, and the host continues meanwhile."""
    return x.device.type == "cuda"


def arithmetic(x: Tensor) -> Hashable:
    """The settings that decide how kernels on something round, and that a recorded frame keeps."""
    return tf32.settings() if is_on_gpu(x) else None


def is_plain_call(x: Tensor) -> bool:
    """Whether nobody watches the operations of this call or changes their types."""
    return _get_current_dispatch_mode() is None and not torch.is_autocast_enabled(x.device.type)


def copy_values(x: Tensor, to: Tensor) -> Tensor:
    """Copy a tensor of two dimensions or more, without starting PyTorch's threads for it."""
    if to.is_cuda:  # a plain copy, which starts in a tenth of a kernel's time
        return to.copy_(x, non_blocking=True)
    ops.store(to, None, x.flatten(0, -2), None)
    return to
