"""Running a video model over frames in order: outputs and costs, frame by frame."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ..data.streaming import is_filler
from ..eventful import count_operations
from ..eventful.counting import OperationCounts
from ..modeling.backbone import synchronize
from ..structures import FrameCost


def run_frames(model: nn.Module, loader: Iterable[list[dict]]) -> Iterator[tuple[dict, dict, FrameCost]]:
    """Yield (model input, model output, cost) frame by frame, beginning with a model that remembers nothing.

    The loader gives a frame for every stream at once; these follow each other here. Seconds are those of the model
    alone, without reading the frame; streams share those of their batch. Close the generator (contextlib.closing)
    where it may not run to its end, so that the model's training mode is restored.
    """
    device = next(model.parameters()).device
    with _eval_mode(model), count_operations(model) as counts:
        for position, inputs in enumerate(loader):
            if position == 0:
                _start(model, inputs, device)
            counts.clear()
            outputs, seconds = _timed_call(model, inputs, device)
            wanted = [stream for stream, model_input in enumerate(inputs) if not is_filler(model_input)]
            for stream in wanted:
                yield inputs[stream], outputs[stream], _cost(model, counts, stream, seconds, len(wanted))


def _cost(model: nn.Module, counts: OperationCounts, stream: int, seconds: float, streams: int) -> FrameCost:
    return FrameCost(
        flushed=bool(model.flushed[stream]),
        macs=counts.by_category(stream),
        backbone_seconds=model.backbone_seconds / streams,
        total_seconds=seconds / streams,
    )


def _start(model: nn.Module, inputs: list[dict], device: torch.device) -> None:
    if device.type == "cuda":
        _timed_call(model, inputs, device)  # the first call on a GPU loads kernels; that is no frame's cost
    model.reset()


def _timed_call(model: nn.Module, inputs: list[dict], device: torch.device) -> tuple[list[dict], float]:
    synchronize(device)
    start = time.perf_counter()
    # Around the call alone: a generator that held it across a yield would switch off the consumer's gradients
    # too. And not inference_mode, whose tensors, as the model's state, could not be updated outside of it.
    with torch.no_grad():
        outputs = model(inputs)
    synchronize(device)
    return outputs, time.perf_counter() - start


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
