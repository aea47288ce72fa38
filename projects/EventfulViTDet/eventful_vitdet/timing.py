"""The timed call of a detector, and what its frames cost. The clock is read while the device is idle."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from eventful_vit import OperationCounts
from eventful_vit.ops import cpu
from torch import nn

from .structures import FrameCost

if TYPE_CHECKING:
    from .modeling.detector_state import DetectorState, DetectorTrace

Result = TypeVar("Result")


def timed_call(
    call: Callable[[], Result], device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> tuple[Result, float]:
    """What `call` returns, and the seconds that it took, with all work that it started on the device."""
    if device.type == "cpu":
        cpu.available()  # compiling the kernels, when they are used for the first time, is no frame's time
    synchronize(device)
    start = clock()
    result = call()
    synchronize(device)
    return result, clock() - start


@dataclass(frozen=True)
class TimedOutputs:
    """What a detector's call gave, and how long it took."""

    outputs: list[dict]
    seconds: float
    backbone_seconds: float
    """Of that, the Transformer's part: embedding included, pyramid excluded."""


def run_timed(
    model: nn.Module,
    inputs: list[dict],
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
    state: DetectorState | None = None,
) -> TimedOutputs:
    """Run a detector on a batch and time it; `state` is that of its streams, by default the model's own."""
    call = (lambda: model(inputs)) if state is None else (lambda: model(inputs, state))
    # Around the call only: a generator that held it across a yield would switch off the consumer's gradients
    # too. And not inference_mode, whose tensors, as the model's state, could not be updated outside of it.
    with torch.no_grad(), module_clock(model.vit, device, clock) as backbone:
        outputs, seconds = timed_call(call, device, clock)
    return TimedOutputs(outputs, seconds, sum(backbone))


@contextmanager
def module_clock(
    module: nn.Module, device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> Iterator[list[float]]:
    """Within the context, the seconds of every call of a module are appended to the list that it yields."""
    seconds: list[float] = []
    starts: list[float] = []

    def start(*_: object) -> None:
        synchronize(device)
        starts.append(clock())

    def stop(*_: object) -> None:
        synchronize(device)
        seconds.append(clock() - starts.pop())

    hooks = module.register_forward_pre_hook(start), module.register_forward_hook(stop)
    try:
        yield seconds
    finally:
        for hook in hooks:
            hook.remove()


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished, so that a clock read next measures finished work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def frame_cost(
    trace: DetectorTrace, counts: OperationCounts, call: TimedOutputs, stream: int = 0, streams: int = 1
) -> FrameCost:
    """The cost of a stream's frame in a detector's call on so many streams, whose trace and counts are given."""
    return FrameCost(
        flushed=trace.flushed[stream],
        macs=counts.by_category(stream),
        backbone_seconds=call.backbone_seconds / streams,
        total_seconds=call.seconds / streams,
    )
