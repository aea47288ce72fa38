"""A detector for several videos at once: a batch of streams, each with a state of its own."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import torch
from detectron2.config import CfgNode
from eventful_vit.frame import GateTrace
from eventful_vit.selection import Selection

from .budgets import DENSE
from .control import RuntimeControl
from .data.input_preparation import InputPreparation
from .masks import NO_MASKS, MaskRequest
from .modeling.detector_state import DetectorState
from .modeling.video_rcnn import VideoRCNN
from .predictor import FrameResult, locate_tokens, model_input_of, ready_to_detect
from .scene_cuts import SceneCuts
from .structures import Detections, FrameCost, SourceFrame
from .timing import TimedOutputs, frame_cost, run_timed


@dataclass
class CanvasGroup:
    """The streams whose frames have one size with their padding; they form one batch."""

    state: DetectorState
    members: list[int] = field(default_factory=list)
    """Numbers of the streams, by their places in the state."""

    def arrange(self, streams: Sequence[int]) -> list[int]:
        """Give these streams the first places, and return them in that order; those already here keep their past."""
        known = [member for member in self.members if member in streams]
        order = known + [stream for stream in streams if stream not in known]
        self.members += order[len(known) :]
        for place, stream in enumerate(order):
            before = self.members.index(stream)
            if before != place:
                self.state.swap(place, before)
                self.members[place], self.members[before] = stream, self.members[place]
        return order


class BatchDetector:
    """Runs a VideoRCNN on the newest frames of several streams; a context manager like `VideoDetector`.

    Frames of one padded size are computed together, other sizes in a batch of their own, so each stream's result is
    that of a run by itself. One controller steers all: it is told the seconds of the whole batch and the mean
    operations of its frames. Scene cuts flush their own stream only.
    """

    def __init__(
        self,
        cfg: CfgNode,
        model: VideoRCNN,
        control: RuntimeControl,
        clock: Callable[[], float] = time.perf_counter,
        masks: MaskRequest = NO_MASKS,
    ) -> None:
        self.model = model
        self.control = control
        self._prepare = InputPreparation(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, cfg.INPUT.FORMAT)
        self._clock, self._masks = clock, masks
        self._device = next(model.parameters()).device
        self._groups: dict[tuple[int, int], CanvasGroup] = {}
        self._canvases: dict[int, tuple[int, int]] = {}
        self._cuts: dict[int, SceneCuts] = {}
        self._exit = ExitStack()

    def __enter__(self) -> BatchDetector:
        self._counts = self._exit.enter_context(ready_to_detect(self.model, self._masks))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._exit.close()

    def detect(self, frames: Mapping[int, SourceFrame]) -> dict[int, FrameResult]:
        """Detect objects in one frame per stream. Streams without a frame keep their state and wait.

        Args:
            frames: by the number of the stream.
        """
        inputs = {stream: model_input_of(frame, self._prepare) for stream, frame in frames.items()}
        canvases = {stream: self.model.canvas_of(item["image"].shape[-2:]) for stream, item in inputs.items()}
        policy = self.control.before_frame(min(frame.index for frame in frames.values()))
        budget = str(policy) if self.model.enabled else DENSE
        results: dict[int, FrameResult] = {}
        for canvas in dict.fromkeys(canvases.values()):
            streams = [stream for stream in inputs if canvases[stream] == canvas]
            results.update(self._detect_group(canvas, {stream: inputs[stream] for stream in streams}, budget))
        if self.model.enabled:
            gates = next(iter(results.values())).gates
            self.control.controller.after_frame(batch_cost([result.cost for result in results.values()]), gates)
            target = self.control.controller.state
            results = {stream: replace(result, target=target) for stream, result in results.items()}
        return results

    def _detect_group(self, canvas: tuple[int, int], inputs: dict[int, dict], budget: str) -> dict[int, FrameResult]:
        group = self._groups.setdefault(canvas, CanvasGroup(self.model.new_state()))
        order = group.arrange(list(inputs))
        group.state.reset([place for place, stream in enumerate(order) if self._canvases.get(stream) != canvas])
        self._canvases.update(dict.fromkeys(order, canvas))
        self._counts.clear()
        call = run_timed(self.model, [inputs[stream] for stream in order], self._device, self._clock, group.state)
        return {
            stream: self._result(stream, place, inputs[stream], call, group.state, budget)
            for place, stream in enumerate(order)
        }

    def _result(
        self, stream: int, place: int, model_input: dict, call: TimedOutputs, state: DetectorState, budget: str
    ) -> FrameResult:
        trace = state.trace
        grid, area = locate_tokens(model_input, trace.canvas, self.model.vit.patch_size)
        cost = frame_cost(trace, self._counts, call, place, len(call.outputs))
        gates = {name: gate_of_stream(gate, place) for name, gate in trace.vit.gates.items()} if trace.vit else {}
        cuts = self._cuts.setdefault(stream, SceneCuts(self.control.cuts.ratio))
        cut = bool(gates) and cuts.seen(gates, grid)
        if cut:
            state.reset([place])
        return FrameResult(
            detections=Detections.from_instances(call.outputs[place]["instances"], model_input),
            cost=cost if self.model.enabled else replace(cost, flushed=False),
            budget=budget,
            scene_cut=cut,
            token_area=area,
            token_grid=(grid.rows, grid.columns),
            gates=gates,
        )


def gate_of_stream(gate: GateTrace, stream: int) -> GateTrace:
    """What a gate saw and chose in one stream of a batch, as if it were the only one."""
    norms = None if gate.norms is None else gate.norms[stream : stream + 1]
    if gate.selection.index is None:
        return GateTrace(Selection.everything(1, gate.selection.tokens), norms)
    index = gate.selection.stream_index(stream)
    return GateTrace(Selection(1, gate.selection.tokens, index, torch.tensor([0, len(index)])), norms)


def batch_cost(costs: Sequence[FrameCost]) -> FrameCost:
    """What a controller is told of a batch: the seconds of all frames together, and the mean of their operations."""
    macs: Counter[str] = Counter()
    for cost in costs:
        macs.update(cost.macs)
    return FrameCost(
        flushed=any(cost.flushed for cost in costs),
        macs={name: value / len(costs) for name, value in macs.items()},
        backbone_seconds=sum(cost.backbone_seconds for cost in costs),
        total_seconds=sum(cost.total_seconds for cost in costs),
    )
