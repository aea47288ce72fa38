"""A frame's kernels as a CUDA graph, which starts them all at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor

from ..fork_safe_lock import ForkSafeLock
from ..tape import recording

_of_thread = threading.local()
_one_at_a_time = ForkSafeLock(threading.RLock)
"""PyTorch begins a recording by waiting for the whole GPU, which is an error while another thread records. The same
thread may come again, by a model within a block of another one: an error too, but no endless wait."""


class Graph:
    """The GPU's work for one frame (a `Recorder`)."""

    def __init__(self, device: torch.device, pool: tuple[int, int] | None) -> None:
        """
        Args:
            pool: memory that graphs share which never run at the same time; None: a new one.
        """
        self.refusal: str | None = None
        self.held: list[Any] = []  # a replay may start before the host knows that weights were replaced
        self._device = device
        self.pool = pool or torch.cuda.graph_pool_handle()
        self._graph = torch.cuda.CUDAGraph()

    def record(self, run: Callable[[], Tensor]) -> Tensor:
        """Record what `run` starts, and do it. Where it cannot be recorded, `run` is called again, outside."""
        try:
            with torch.cuda.device(self._device), _one_at_a_time.lock, _current_stream_kept(self._device):
                result = self._record(run)
        except RuntimeError as error:  # such as waiting for the device, which a recording cannot
            self.refusal = self.refusal or f"it cannot be recorded as a CUDA graph: {error}"
        if self.refusal is not None:
            self._graph.reset()
            return run()
        self.replay()
        return result

    def _record(self, run: Callable[[], Tensor]) -> Tensor:
        stream = _recording_stream(self._device)
        try:
            with recording(self), torch.cuda.graph(
                self._graph, self.pool, stream, capture_error_mode="thread_local"
            ):
                return run()
        except BaseException:
            self._end_broken_recording()
            raise

    def _end_broken_recording(self) -> None:
        """Before PyTorch 2.12, the memory allocator takes a recording that failed to go on: it would refuse all later
        recordings, and to free memory."""
        device = torch.cuda.current_device()
        with suppress(RuntimeError, AttributeError):  # it did end, or a later PyTorch lacks these
            torch._C._cuda_endAllocateToPool(device, self.pool)
            torch._C._cuda_releasePool(device, self.pool)

    def replay(self) -> None:
        """Repeat it, with what its input memory holds now."""
        self._graph.replay()  # on its own device's current stream, whichever device is current


def shared_pool(graphs: Iterable[Graph]) -> tuple[int, int] | None:
    """The memory of some graphs that share it, for another one. That of a graph that failed was given back."""
    return next((graph.pool for graph in graphs if graph.refusal is None), None)


@contextmanager
def _current_stream_kept(device: torch.device) -> Iterator[None]:
    """Be on this thread's stream again at the end: PyTorch stays on that of a recording that failed."""
    stream = torch.cuda.current_stream(device)
    try:
        yield
    finally:
        torch.cuda.set_stream(stream)


def _recording_stream(device: torch.device) -> torch.cuda.Stream:
    """Where this thread records on a GPU. PyTorch's own choice is one stream of the GPU that was recorded on first, for
    all GPUs and threads: what another one started would not be recorded."""
    streams = vars(_of_thread)
    if device not in streams:
        streams[device] = torch.cuda.Stream(device)
    return streams[device]
