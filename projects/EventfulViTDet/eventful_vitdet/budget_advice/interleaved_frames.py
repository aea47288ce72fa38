"""Runs the dense model and several budgets on the same frames of a video, frame by frame in turn."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

import torch
from detectron2.config import CfgNode
from eventful_vit import TopR
from torch import nn
from tqdm import tqdm

from ..control import RuntimeControl, build_bounds, build_runtime_control
from ..control_groups import memory_left
from ..controllers import QUALITY_FLOOR, Constant
from ..errors import ConfigError, VideoReadError, describe_error
from ..evaluation import compute_agreement
from ..evaluation.detection_table import DetectionTable
from ..evaluation.metrics import VID_AP50
from ..interruption import Interruptions
from ..masks import MaskRequest
from ..predictor import FrameResult, VideoDetector, dense_detector, share_weights
from ..shown_score import SHOWN_SCORE
from ..structures import FrameCost, SourceFrame
from ..video import VideoSource, check_part
from .measured_budgets import MeasuredBudget, Measurement, summarise
from .other_work import WorkSoFar, share_of_others

PARTS = (1 / 2, 1 / 4, 1 / 8, QUALITY_FLOOR)
"""Budgets that are measured by default, as parts of a frame's tokens."""
WARM_UP = 2
"""Rounds that are not timed: in the first, frames are computed in full."""
LEAST_FRAMES = WARM_UP + 2
SPARE_MEMORY = 0.1
"""Share of the free memory that is left to others."""

logger = logging.getLogger(__name__)


def measure_budgets(
    cfg: CfgNode,
    model: nn.Module,
    source: VideoSource,
    *,
    budgets: Sequence[int] = (),
    frames: int = 30,
    start: int = 0,
) -> Measurement:
    """Measure the dense model and several budgets on frames of a video.

    An interruption ends the measurement: what was measured until then is returned, marked as such.

    Args:
        budgets: tokens per gate; by default parts of the frame's tokens.
        frames: how many frames are looked at.
        start: number of the first one.

    Raises:
        ConfigError: a budget that the configuration's bounds forbid, or a source with too few frames.
        KeyboardInterrupt: an interruption came before there was anything to tell.
        VideoReadError: the source cannot be read.
    """
    check_part(source, start, None, 1)
    if frames < LEAST_FRAMES:
        raise ConfigError(f"{LEAST_FRAMES} or more frames are needed, found {frames}")
    with ExitStack() as stack:
        interruptions = stack.enter_context(Interruptions())
        stream = stack.enter_context(closing(_read_frames(source, frames, start)))
        stack.enter_context(interruptions.allowed())
        return _Turns(cfg, model, source, stack).measure(stream, budgets, frames)


def choose_budgets(cfg: CfgNode, budgets: Sequence[int], tokens: int) -> list[int]:
    """The budgets to measure, by falling r; without `budgets` parts of a frame's tokens, within the bounds of r.

    Raises ConfigError for a budget beyond the bounds, as commands would run another one.
    """
    bounds = build_bounds(cfg)
    for r in budgets:
        if bounds.clamp(r) != r:
            raise ConfigError(f"--budgets: MODEL.EVENTFUL.CONTROLLER.R_MIN and R_MAX forbid r = {r}")
    chosen = budgets or [int(bounds.clamp(max(1, round(part * tokens)))) for part in PARTS]
    return sorted(set(chosen), reverse=True)


def _read_frames(source: VideoSource, frames: int, start: int) -> Iterator[SourceFrame]:
    """The frames to measure on. Those of a live source are taken at once: it would not wait while models run."""
    with closing(source.frames(start)) as stream:
        if source.live:
            yield from list(itertools.islice(stream, frames))
            return
        count = 0
        try:
            for frame in itertools.islice(stream, frames):
                count += 1
                yield frame
        except VideoReadError as error:
            if count < LEAST_FRAMES:
                raise
            logger.warning("measuring ends here: %s", describe_error(error))


@dataclass
class _Run:
    """A budget while it is measured."""

    r: int | None
    detector: VideoDetector
    costs: list[FrameCost] = field(default_factory=list)
    tables: list[DetectionTable] = field(default_factory=list)
    """Detections by round."""


class _Turns:
    """All budgets on one video."""

    def __init__(self, cfg: CfgNode, model: nn.Module, source: VideoSource, stack: ExitStack) -> None:
        self._cfg, self._model, self._source, self._stack = cfg, model, source, stack
        self._masks = MaskRequest(SHOWN_SCORE)  # as for an annotated video
        self._runs = [_Run(None, stack.enter_context(dense_detector(cfg, model, self._masks)))]

    def measure(self, stream: Iterator[SourceFrame], budgets: Sequence[int], frames: int) -> Measurement:
        first = next(stream, None)
        if first is None:
            raise self._too_short(0)
        seen = self._runs[0].detector.detect(first)
        tokens = seen.token_grid[0] * seen.token_grid[1]
        name = os.path.basename(self._source.name) or self._source.name
        logger.info("%s: %d tokens; dense, the first frame took %.0f ms", name, tokens, 1000 * seen.cost.total_seconds)
        self._add_budgets(choose_budgets(self._cfg, budgets, tokens), first)
        before, interrupted = WorkSoFar.now(), False
        try:
            self._take_turns(itertools.chain([first], stream), self._expected(first, frames))
        except KeyboardInterrupt:
            if self._rounds < LEAST_FRAMES:
                raise
            interrupted = True
        if self._rounds < LEAST_FRAMES:
            raise self._too_short(self._rounds)
        return Measurement(
            budgets=self._results(),
            tokens=tokens,
            picture=self._picture(first, seen),
            frames=self._rounds,
            interrupted=interrupted,
            others=share_of_others(before, WorkSoFar.now()),
            device=str(self._model.device),
            threads=torch.get_num_threads(),
        )

    @property
    def _rounds(self) -> int:
        """Frames that every budget has run on."""
        return min(len(run.tables) for run in self._runs)

    def _expected(self, first: SourceFrame, frames: int) -> int:
        """How many of so many frames there will be from the first one on, as far as the source knows."""
        end = self._source.num_frames
        return frames if end is None else min(frames, len(range(first.index, end)))

    def _too_short(self, found: int) -> ConfigError:
        return ConfigError(f"{self._source.name}: {LEAST_FRAMES} or more frames are needed, found {found}")

    def _picture(self, frame: SourceFrame, seen: FrameResult) -> tuple[int, int]:
        patch = self._model.vit.patch_size
        sides = zip(frame.image.shape, seen.token_grid, seen.token_area)
        return tuple(round(side * tokens * patch / covered) for side, tokens, covered in sides)

    def _add_budgets(self, budgets: Sequence[int], first: SourceFrame) -> None:
        """Make a detector for every budget that there is memory for. Each runs one frame, which allocates its state."""
        left_out = []
        for r in budgets:
            if len(self._runs) > 1 and self._state_bytes(self._runs[-1]) > self._free_bytes():
                left_out.append(r)
                continue
            model = share_weights(self._model)
            model.enabled = True
            cuts = build_runtime_control(self._cfg, model).cuts
            control = RuntimeControl(model, Constant(TopR(r)), cuts=cuts)
            run = _Run(r, self._stack.enter_context(VideoDetector(self._cfg, model, control, masks=self._masks)))
            run.detector.detect(first)
            self._runs.append(run)
        if left_out:
            size = self._state_bytes(self._runs[-1]) / 1e9
            words = ", ".join(map(str, left_out))
            logger.warning("r = %s: not measured, as a budget keeps %.1f GB and memory is short", words, size)

    def _state_bytes(self, run: _Run) -> int:
        return run.detector.model.state_bytes()

    def _free_bytes(self) -> float:
        device = self._model.device
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else memory_left()
        return float("inf") if free is None else (1 - SPARE_MEMORY) * free

    def _take_turns(self, stream: Iterator[SourceFrame], expected: int) -> None:
        """Run every budget on a frame before the next one; which of them is first changes from frame to frame.

        `expected`: number of frames, for the progress bar.
        """
        for run in self._runs:
            run.detector.model.reset()
        with tqdm(total=expected * len(self._runs), desc="measuring", unit="frame") as progress:
            for number, frame in enumerate(stream):
                place = number % len(self._runs)
                for run in (*self._runs[place:], *self._runs[:place]):
                    result = run.detector.detect(frame)
                    run.costs.append(result.cost)
                    run.tables.append(DetectionTable.of_frame(number, result.detections))
                    progress.update()

    def _results(self) -> list[MeasuredBudget]:
        whole = self._rounds  # budgets that were ahead of the others when an interruption came have a frame more
        names = [str(number) for number in range(self._cfg.MODEL.ROI_HEADS.NUM_CLASSES)]  # which are not shown
        images = [{"image_id": number} for number in range(whole)]
        tables = [DetectionTable.join(run.tables[:whole]) for run in self._runs]
        results = []
        for run, table in zip(self._runs, tables):
            costs = run.costs[WARM_UP:whole]
            if run.r is None:
                results.append(summarise(None, costs))
                continue
            agreement = compute_agreement(images, names, [], tables[0], table)[VID_AP50]
            results.append(summarise(run.r, costs, agreement, self._state_bytes(run)))
        return results
