"""Running a video model over frames in order, and what comes of it: metrics and costs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager

import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from torch import nn
from tqdm import tqdm

from ..eventful import count_operations
from ..modeling.backbone import synchronize
from .costs import CostSums, FrameCost


def evaluate_stream(
    model: nn.Module,
    loader: Iterable[list[dict]],
    evaluator: DatasetEvaluator,
    description: str = "evaluating",
) -> tuple[dict, CostSums]:
    """Run the model over a loader of single frames in order.

    Returns the evaluator's results ({} in all processes but the first) and the costs (in the first process,
    of all). The model's training mode is restored however the run ends.
    """
    evaluator.reset()
    sums = CostSums()
    quiet = not comm.is_main_process()
    progress = tqdm(total=len(loader), desc=description, unit="frame", mininterval=1.0, disable=quiet)
    with progress, closing(run_frames(model, loader)) as run:
        for model_input, output, cost in run:
            evaluator.process([model_input], [output])
            sums.add(model_input["video_id"], cost)
            progress.update()
    results = evaluator.evaluate() or {}
    for part in comm.gather(sums, dst=0)[1:]:
        sums.merge(part)
    return results, sums


def run_frames(model: nn.Module, loader: Iterable[list[dict]]) -> Iterator[tuple[dict, dict, FrameCost]]:
    """Yield (model input, model output, cost) frame by frame, beginning with a model that remembers nothing.

    Seconds are those of the model alone, without reading the frame. Close the generator (contextlib.closing)
    where it may not run to its end, so that the model's training mode is restored.
    """
    device = next(model.parameters()).device
    with _eval_mode(model), count_operations(model) as counts:
        for position, inputs in enumerate(loader):
            if len(inputs) != 1:
                raise ValueError(f"frames are evaluated one at a time, but the loader gave {len(inputs)} at once")
            if position == 0:
                _start(model, inputs, device)
            counts.clear()
            outputs, seconds = _timed_call(model, inputs, device)
            yield (
                inputs[0],
                outputs[0],
                FrameCost(
                    flushed=bool(model.flushed[0]),
                    macs=counts.by_category(),
                    backbone_seconds=model.backbone_seconds,
                    total_seconds=seconds,
                ),
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
