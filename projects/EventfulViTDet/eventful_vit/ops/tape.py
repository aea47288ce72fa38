"""Recording the kernel calls of a frame, to repeat them in one call.

In a small model, Python takes longer to reach the next kernel than a kernel takes: the demo's model computes a later
frame in about half the time if it is repeated from a tape. A tape holds the calls with all their memory: what they read
and write must lie where it lay. Numbers that change from frame to frame, such as budgets, are read from memory, too. It
is the CPU's counterpart of a CUDA graph.
"""

from __future__ import annotations

import ctypes
import math
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ALIGNMENT = 64

_state = threading.local()


class Recorder(Protocol):
    """A frame that is recorded and repeated: a tape on a CPU, a CUDA graph on a GPU."""

    refusal: str | None
    """Why the frame cannot be repeated; None if it can."""
    held: list[Any] | None
    """What is kept in memory because a replay reads it; None: the caller checks before each replay that it is there."""

    def record(self, run: Callable[[], Tensor]) -> Tensor:
        """Record what `run` does; returns its result."""

    def replay(self) -> None:
        """Repeat the frame, with what its input memory holds now; the result is where it was."""


Calls = list[tuple[int, ctypes.Structure]]
"""Kernels' addresses and their arguments."""


class Tape:
    """The kernel calls of one frame, in order."""

    def __init__(self, make_replay: Callable[[Calls], Callable[[], None]]) -> None:
        """
        Args:
            make_replay: turns calls into a function that repeats them.
        """
        self.refusal: str | None = None
        self.held: list[Any] | None = None
        self._make_replay = make_replay
        self._calls: Calls = []
        self._inputs: list[Tensor] = []
        self._blocks: list[Tensor] = []
        self._free: list[int] = []  # blocks that no result lies in
        self._replay: Callable[[], None] | None = None

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory for a result. It serves a later result once this one is no longer referred to."""
        count = math.prod(shape)
        if not count:
            return torch.empty(shape, dtype=dtype)
        size = -(-count * dtype.itemsize // ALIGNMENT) * ALIGNMENT
        fitting = [number for number in self._free if size <= len(self._blocks[number]) <= 2 * size]
        if fitting:
            number = min(fitting, key=lambda number: len(self._blocks[number]))
            self._free.remove(number)
        else:
            number = len(self._blocks)
            self._blocks.append(torch.empty(size, dtype=torch.uint8))
        # The tensor's storage, and with it every view, keeps the array alive; when it goes, the block is free.
        array = (ctypes.c_char * size).from_address(self._blocks[number].data_ptr())
        weakref.finalize(array, self._free.append, number).atexit = False
        return torch.frombuffer(array, dtype=dtype, count=count).view(shape)

    def append(self, kernel: int, arguments: ctypes.Structure, tensors: tuple[Tensor | None, ...]) -> None:
        """Record a call: the kernel's address, its arguments, and the tensors that these point to."""
        self._calls.append((kernel, arguments))
        self._inputs += [tensor for tensor in tensors if tensor is not None and not self._owns(tensor)]

    def _owns(self, tensor: Tensor) -> bool:
        place = tensor.data_ptr()
        return any(block.data_ptr() <= place < block.data_ptr() + len(block) for block in self._blocks)

    def record(self, run: Callable[[], Tensor]) -> Tensor:
        """Record the kernel calls that `run` makes, which take place."""
        with recording(self), _Watcher():
            result = run()
        if self.refusal is None:
            self._replay = self._make_replay(self._calls)
        return result

    def replay(self) -> None:
        """Repeat the frame, with what its input memory holds now."""
        assert self._replay is not None
        self._replay()

    @property
    def nbytes(self) -> int:
        """Bytes of memory for results."""
        return sum(len(block) for block in self._blocks)


class _Watcher(TorchDispatchMode):
    """Sees whether a frame consists of kernels and views and nothing else, which a tape would miss."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func.namespace != "eventful_vit" and not func.is_view:
            refuse(f"{func} is not a kernel")
        return func(*args, **(kwargs or {}))


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Record what this thread does within the context."""
    _state.recorder = recorder
    try:
        yield
    finally:
        _state.recorder = None


def current() -> Tape | None:
    """The tape that this thread records, if any."""
    recorder = getattr(_state, "recorder", None)
    return recorder if isinstance(recorder, Tape) else None


def refuse(reason: str) -> None:
    """Say that the frame being recorded, if any, does something that a tape cannot repeat."""
    recorder = getattr(_state, "recorder", None)
    if recorder is not None and recorder.refusal is None:
        recorder.refusal = reason


def hold(value: Any) -> None:
    """Keep a value in memory as long as the recording that is being made, if that keeps what it reads."""
    recorder = getattr(_state, "recorder", None)
    if recorder is not None and recorder.held is not None:
        recorder.held.append(value)
