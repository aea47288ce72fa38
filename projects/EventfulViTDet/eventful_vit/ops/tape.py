"""Recording the kernel calls of a frame, to repeat them in one call.

In a small model, Python takes longer to reach the next kernel than a kernel takes: the demo's model computes a later frame
in about half the time if it is repeated from a tape. A tape holds the calls with all their memory: what they read and write
must lie where it lay. It is the CPU's counterpart of a CUDA graph.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_state = threading.local()


class Tape:
    """The kernel calls of one frame, in order."""

    def __init__(self) -> None:
        self.refusal: str | None = None
        """Why the frame cannot be repeated; None if it can."""
        self._calls: list[tuple[int, ctypes.Structure]] = []
        self._memory: list[Tensor] = []
        self._replay: Callable[[], None] | None = None

    def append(self, kernel: int, arguments: ctypes.Structure, tensors: tuple) -> None:
        """Record a call: the kernel's address, its arguments, and the tensors that these point to."""
        self._calls.append((kernel, arguments))
        self._memory.extend(tensors)

    def finish(self, make_replay: Callable[[list[tuple[int, ctypes.Structure]]], Callable[[], None]]) -> None:
        """End recording; `make_replay` turns the calls into a function that repeats them."""
        self._replay = make_replay(self._calls)

    def replay(self) -> None:
        """Repeat the frame, with what its input memory holds now."""
        assert self._replay is not None
        self._replay()


class _Watcher(TorchDispatchMode):
    """Sees whether a frame consists of kernels and views and nothing else, which a tape would miss."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func.namespace != "eventful_vit" and not func.is_view:
            refuse(f"{func} is not a kernel")
        return func(*args, **(kwargs or {}))


@contextmanager
def recording(tape: Tape) -> Iterator[None]:
    """Record the kernel calls that this thread makes within the context."""
    _state.tape = tape
    try:
        with _Watcher():
            yield
    finally:
        _state.tape = None


def current() -> Tape | None:
    """The tape that this thread records, if any."""
    return getattr(_state, "tape", None)


def refuse(reason: str) -> None:
    """Say that the frame being recorded, if any, does something that a tape cannot repeat."""
    tape = current()
    if tape is not None and tape.refusal is None:
        tape.refusal = reason
