"""The timed call of a detector, and what its frames cost. The clock is read while the device is idle."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from .eventful.counting import OperationCounts
from .modeling.backbone import synchronize
from .structures import FrameCost

Result = TypeVar("Result")


def timed_call(
    call: Callable[[], Result], device: torch.device, clock: Callable[[], float] = time.perf_counter
) -> tuple[Result, float]:
    """What `call` returns, and the seconds that it took, with all work that it started on the device."""
    synchronize(device)
    start = clock()
    result = call()
    synchronize(device)
    return result, clock() - start


def run_timed(
    model: nn.Module,
    inputs: list[dict],
    device: torch.device,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[dict], float]:
    """Run a detector on a batch: its outputs, and the seconds that it took."""
    # Around the call alone: a generator that held it across a yield would switch off the consumer's gradients
    # too. And not inference_mode, whose tensors, as the model's state, could not be updated outside of it.
    with torch.no_grad():
        return timed_call(lambda: model(inputs), device, clock)


def frame_cost(
    model: nn.Module, counts: OperationCounts, seconds: float, stream: int = 0, streams: int = 1
) -> FrameCost:
    """The cost of a stream's frame in the model's last call, which took `seconds` for so many streams.

    `counts` are of that call only.
    """
    return FrameCost(
        flushed=bool(model.flushed[stream]),
        macs=counts.by_category(stream),
        backbone_seconds=model.backbone_seconds / streams,
        total_seconds=seconds / streams,
    )
