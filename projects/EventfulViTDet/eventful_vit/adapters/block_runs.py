"""One call of a library's model: what runs in the place of its blocks (see stand_ins.py)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ..block import BlockSpec
from ..encoder import EventfulEncoder
from ..frame import BlockTrace, Frame, FrameTrace
from ..streams import FrameForm
from .adaptation import Adaptation
from .family import Arguments, BlockCall, first
from .stand_ins import named_arguments

OpenFrame = Callable[[int, FrameForm], AbstractContextManager[Frame]]
"""Opens an eventful frame of so many streams."""


class BlockRun:
    """One call of a model, seen from its blocks."""

    def __init__(self, adaptation: Adaptation, size: tuple[int, int]) -> None:
        """
        Args:
            size: height and width of the images in pixels.
        """
        self.adaptation, self.size = adaptation, size
        self.blocks = adaptation.blocks
        self.stack = ExitStack()
        """Contexts to close after the model's call."""
        self._done = 0
        self._memo: dict[int, tuple] = {}

    def stand_in(self, number: int, block: nn.Module) -> Callable:
        """What runs in place of a block's `forward`."""
        wraps = self.adaptation.form.in_tuple

        def forward(x: Tensor, *args: Any, **kwargs: Any) -> Any:
            if number != self._done:
                raise ValueError(
                    f"block {number} was called after {self._done} blocks had run; an eventful frame needs each of the "
                    f"{len(self.blocks)} blocks once and in order (two passes in one call would be two frames)"
                )
            self._done += 1
            result = self.run(number, block, x, named_arguments(type(block), args, kwargs))
            return (result,) if wraps else result

        return forward

    def run(self, number: int, block: nn.Module, x: Tensor, arguments: Arguments) -> Tensor:
        """A block: its tokens, in the form that the library has them in, to those that it returns."""
        raise NotImplementedError

    def finish(self) -> None:
        """Finish the call, after the model has returned."""

    def _frame_form(self, x: Tensor) -> FrameForm:
        """The frame's form, from the tokens of its first block."""
        form = self.adaptation.form
        grid = form.grid(x) or self.adaptation.grid(self.size)
        prefix = form.flatten(x).shape[1] - grid[0] * grid[1]
        if prefix < 0:
            raise ValueError(f"{grid[0]} x {grid[1]} patches but fewer tokens: no patches may be left out")
        return FrameForm(grid, x.dtype, x.device, prefix)

    def _call(self, form: FrameForm, arguments: Arguments) -> BlockCall:
        return BlockCall(self.adaptation.dim, form.prefix, arguments, self._memo)


class EventfulRun(BlockRun):
    """Blocks on changed tokens."""

    def __init__(
        self, adaptation: Adaptation, size: tuple[int, int], encoder: EventfulEncoder, open_frame: OpenFrame
    ) -> None:
        super().__init__(adaptation, size)
        self._encoder, self._open_frame = encoder, open_frame
        encoder.check_depth(self.blocks)

    def finish(self) -> None:
        """
        Raises:
            ValueError: blocks were left out.
        """
        if self._done < len(self.blocks):
            replaced = "forward" in self.adaptation.model.__dict__
            raise ValueError(
                f"{self._done} of {len(self.blocks)} blocks ran; an eventful frame needs all of them, called by the "
                f"code of the model's own class{', not by the `forward` that this model was given' if replaced else ''}"
            )

    def _tokens(self, x: Tensor) -> Tensor:
        """A copy of a block's tokens, (B, N, D), that may be written to."""
        return self.adaptation.form.flatten(x).clone(memory_format=torch.contiguous_format)


class ChainedRun(EventfulRun):
    """Eventful blocks of a model that hands each block's result to the next one: the first call runs them all.

    Then nothing has to be copied between them, and small frames are repeated from tapes (encoder.py).
    """

    def run(self, number: int, block: nn.Module, x: Tensor, arguments: Arguments) -> Tensor:
        if number == 0:
            self._passed, self._arguments = x, arguments
            self._output = self._run_all(x, arguments)
        elif x is not self._passed or not _same(arguments, self._arguments):
            raise RuntimeError(f"block {number} was not called with what block {number - 1} returned")
        return x if number < len(self.blocks) - 1 else self.adaptation.form.restore(self._output, x)

    def _run_all(self, x: Tensor, arguments: Arguments) -> Tensor:
        form = self._frame_form(x)
        call = self._call(form, arguments)
        blocks = [_running(self.adaptation.specification(block, call)) for block in self.blocks]
        with self._open_frame(len(x), form) as frame:
            return self._encoder.eventful(blocks, self._tokens(x), frame, observed=False)


class SteppedRun(EventfulRun):
    """Eventful blocks, each when the library calls it. What it got and what it returns stay as they are."""

    def run(self, number: int, block: nn.Module, x: Tensor, arguments: Arguments) -> Tensor:
        if number == 0:
            self._begin(x, arguments)
        spec = self.adaptation.specification(block, self._call(self._form, arguments))
        tokens = self._encoder.eventful_block(number, spec, self._tokens(x), self._frame)
        return self.adaptation.form.restore(tokens, x)

    def _begin(self, x: Tensor, arguments: Arguments) -> None:
        self._form = self._frame_form(x)
        for block in self.blocks:  # what cannot be run is refused before any state changes
            self.adaptation.specification(block, self._call(self._form, arguments))
        self._frame = self.stack.enter_context(self._open_frame(len(x), self._form))


class CountedRun(BlockRun):
    """The library's own blocks, and a trace of what they executed."""

    trace: FrameTrace | None = None
    _is_finished = False

    def stand_in(self, number: int, block: nn.Module) -> Callable:
        counted = super().stand_in(number, block)

        def forward(*args: Any, **kwargs: Any) -> Any:
            # Checkpointing calls a block again in the backward pass.
            return (block.forward if self._is_finished else counted)(*args, **kwargs)

        return forward

    def finish(self) -> None:
        self._is_finished = True

    def run(self, number: int, block: nn.Module, x: Tensor, arguments: Arguments) -> Tensor:
        form = self._frame_form(x)
        if self.trace is None:
            self.trace = FrameTrace((True,) * len(x), form.grid)
        spec = self.adaptation.specification(block, self._call(form, arguments), in_use=False)
        self.trace.blocks.append(BlockTrace.of_all(spec, spec.layout(form.grid), len(x)))
        return first(block.forward(x, **arguments))


def _running(spec: BlockSpec) -> Callable:
    return lambda x, run: run(spec, x)


def _same(one: Arguments, other: Arguments) -> bool:
    return one.keys() == other.keys() and all(value is other[name] for name, value in one.items())
