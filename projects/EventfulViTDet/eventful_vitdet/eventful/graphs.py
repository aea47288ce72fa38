"""CUDA graphs of later frames: one launch replays a frame whose sizes are known before it is seen.

A GPU computes the many small operations of an eventful frame faster than Python can start them. With a fixed budget
(top-r, fraction) their sizes repeat, so they are recorded once and replayed. What normally depends on the content is
given a fixed size (`Step.fixed_sizes`): windows are all computed, and `exact` attention recomputes a fixed number of
queries beside the changed ones, those that need it most. Where that is not enough, the frame is computed in full.
"""

from __future__ import annotations

import copy
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .counting import OperationCounts
from .gate import TokenGate
from .selection import Selection
from .step import Step

MAX_GRAPHS = 8
"""Graphs kept, for the budgets used last; a controller may go through many."""

logger = logging.getLogger(__name__)


@dataclass
class FrameGraph:
    """One recorded frame."""

    graph: torch.cuda.CUDAGraph
    images: Tensor
    """Where the frame has to be when the graph is replayed."""
    output: Tensor
    """(B, N, D), overwritten by every replay."""
    unreliable: Tensor | None
    """Number of queries that the recorded work was not enough for; None where it always is."""
    macs: dict[str, list[int]]
    """Operations by category and stream."""
    choices: list[tuple[TokenGate, Tensor | None, Selection | None]]
    """What every gate shows of its last choice."""


class FrameGraphs:
    """Runs later frames of a model as CUDA graphs, recording one for every budget and batch size."""

    def __init__(self, compute: Callable[[Tensor, Step], Tensor], gates: Callable[[], dict[str, TokenGate]]) -> None:
        """
        Args:
            compute: the frame's work, from images (B, C, H, W) to tokens (B, N, D); it updates the model's state.
            gates: the model's gates.
        """
        self._compute = compute
        self._gates = gates
        self._graphs: OrderedDict[tuple, FrameGraph] = OrderedDict()
        self._pool: tuple | None = None

    def __deepcopy__(self, memo: dict) -> FrameGraphs:
        return FrameGraphs(copy.deepcopy(self._compute, memo), copy.deepcopy(self._gates, memo))  # for other state

    def clear(self) -> None:
        """Forget all graphs: the memory that they work on is no longer the state's."""
        self._graphs.clear()
        self._pool = None

    @staticmethod
    def suit(images: Tensor, tokens: int, step: Step) -> bool:
        """Whether a frame can be recorded: on a GPU, no stream begins, and the budget is known beforehand."""
        return images.is_cuda and not any(step.flush) and step.policy.fixed_count(tokens) is not None

    def run(self, images: Tensor, tokens: int, step: Step, parameters: tuple) -> tuple[Tensor, Step]:
        """Compute a frame that suits.

        The first frame of a kind runs as usual, which also lets the libraries set themselves up; it is recorded after
        that, and from the second one on it is replayed.

        Args:
            images: (B, C, H, W).
            tokens: N, tokens of a stream.
            parameters: a value that changes whenever the model's parameters do; graphs of other ones are forgotten.

        Returns:
            The frame's tokens (B, N, D), and the step that computed them: the given one, or one in which all streams
            flush.
        """
        key = (images.shape, images.dtype, images.device, step.policy.fixed_count(tokens), parameters)
        if self._graphs and next(iter(self._graphs))[-1] != parameters:
            self.clear()
        graph = self._graphs.get(key)
        output, sufficed = self._run_once(images, step) if graph is None else self._replay(graph, images, step)
        if not sufficed:
            logger.info("more queries drifted than a frame of fixed size can compute anew: all are computed in full")
            step = replace(step, flush=(True,) * len(step.flush))
            return self._compute(images, step), step
        if graph is None:
            self._record(key, images, step)
        else:
            self._graphs.move_to_end(key)
        return output, step

    def _run_once(self, images: Tensor, step: Step) -> tuple[Tensor, bool]:
        fixed = replace(step, fixed_sizes=True, unreliable=[])
        output = self._compute(images, fixed)
        return output, not fixed.unreliable or not int(torch.stack(fixed.unreliable).sum())

    def _replay(self, graph: FrameGraph, images: Tensor, step: Step) -> tuple[Tensor, bool]:
        graph.images.copy_(images)
        graph.graph.replay()
        for gate, norms, selection in graph.choices:
            gate.norms, gate.selection = norms, selection
        for category, macs in graph.macs.items():
            step.count(category, macs)
        return graph.output.clone(), graph.unreliable is None or not int(graph.unreliable)

    def _record(self, key: tuple, images: Tensor, step: Step) -> None:
        shown = self._choices()
        counts = OperationCounts()
        fixed = replace(step, fixed_sizes=True, unreliable=[], counts=counts)
        place = torch.empty_like(images)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            output = self._compute(place, fixed)
            unreliable = torch.stack(fixed.unreliable).sum() if fixed.unreliable else None
        self._pool = graph.pool()
        self._graphs[key] = FrameGraph(graph, place, output, unreliable, counts.by_stream(), self._choices())
        for gate, norms, selection in shown:  # recording computes nothing
            gate.norms, gate.selection = norms, selection
        while len(self._graphs) > MAX_GRAPHS:
            self._graphs.popitem(last=False)

    def _choices(self) -> list[tuple[TokenGate, Tensor | None, Selection | None]]:
        return [(gate, gate.norms, gate.selection) for gate in self._gates().values()]
