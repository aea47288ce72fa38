"""Running a video model over frames in order: outputs and costs, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from eventful_vit import count_operations
from torch import nn

from ..data.video_test_loader import is_filler
from ..structures import FrameCost
from ..timing import frame_cost, run_timed


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
            call = run_timed(model, inputs, device)
            trace = model.state.trace
            wanted = [stream for stream, model_input in enumerate(inputs) if not is_filler(model_input)]
            for stream in wanted:
                yield inputs[stream], call.outputs[stream], frame_cost(trace, counts, call, stream, len(wanted))


def _start(model: nn.Module, inputs: list[dict], device: torch.device) -> None:
    if device.type == "cuda":
        run_timed(model, inputs, device)  # the first call on a GPU loads kernels; that is no frame's cost
    model.reset()


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
