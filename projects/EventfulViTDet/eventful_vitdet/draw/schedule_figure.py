"""The paper's first figure for any video: frames with their updated tokens; below them budget and cost over time."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
from detectron2.config import CfgNode
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpecFromSubplotSpec
from torch import nn
from tqdm import tqdm

from ..control import RuntimeControl
from ..controllers import Schedule
from ..errors import ConfigError, DataError
from ..masks import MaskRequest
from ..predictor import FrameResult, VideoDetector, class_names, dense_detector
from ..shown_score import SHOWN_SCORE
from ..structures import SourceFrame
from ..video import VideoSource
from .figure_files import write_figure
from .painter import FramePainter

logger = logging.getLogger(__name__)

FIRST_GATE = "0.qkv"
"""What the pictures show: the tokens that entered the Transformer's first block again."""
WIDTH_INCHES, DOTS_PER_INCH = 10.0, 160
LETTERS = 0.62
"""Size of the letters in the pictures, for OpenCV: about 8 points in print."""


@dataclass
class BudgetRun:
    """What a figure needs of a run under a schedule."""

    wanted: list[int]
    """Numbers of the frames to keep pictures of."""
    r: list[int] = field(default_factory=list)
    """Tokens per gate, of every frame."""
    backbone_gflops: list[float] = field(default_factory=list)
    total_gflops: list[float] = field(default_factory=list)
    dense_gflops: tuple[float, float] = (0.0, 0.0)
    """Of a frame of the dense model: backbone, and everything."""
    tokens: int = 0
    """N, the number of tokens of a frame."""
    pictures: dict[int, np.ndarray] = field(default_factory=dict)
    """Frames by number, BGR, with boxes and updated tokens."""

    def add(self, result: FrameResult, r: int) -> None:
        """Append a frame that ran with this budget."""
        self.tokens = result.token_grid[0] * result.token_grid[1]
        self.r.append(min(r, self.tokens))
        self.backbone_gflops.append(result.cost.backbone_gflops)
        self.total_gflops.append(result.cost.total_gflops)


def fit_schedule(schedule: Schedule, frames: int) -> Schedule:
    """A schedule whose every budget comes within so many frames: the same one, or one that changes sooner.

    Raises ConfigError if there are fewer frames than budgets.
    """
    starts = [start for start, _ in schedule.steps]
    if starts[-1] < frames:
        return schedule
    if frames < len(starts):
        raise ConfigError(f"the video has {frames} frames, too few for the {len(starts)} budgets of {schedule}")
    # As if the last stretch were as long as the others are on average.
    length = starts[-1] * len(starts) / (len(starts) - 1)
    steps: list[tuple[int, int]] = []
    for index, (start, policy) in enumerate(schedule.steps):
        earliest = steps[-1][0] + 1 if steps else 0
        latest = frames - len(starts) + index
        steps.append((min(max(earliest, round(start * frames / length)), latest), policy.r))
    return Schedule(steps)


def record_run(
    cfg: CfgNode,
    model: nn.Module,
    source: VideoSource,
    schedule: Schedule,
    *,
    frames: int,
    min_score: float = SHOWN_SCORE,
) -> BudgetRun:
    """Run the model over the first frames of a source under a schedule.

    A picture is kept from the middle of each stretch of the schedule, or from where the video ends in it.
    """
    starts = [start for start, _ in schedule.steps if start < frames]
    run = BudgetRun([(start + end) // 2 for start, end in zip(starts, [*starts[1:], frames])])
    painter = FramePainter(
        class_names(cfg), model.vit.gate_names, tokens=FIRST_GATE, min_score=min_score, letters=LETTERS
    )
    detector = VideoDetector(cfg, model, RuntimeControl(model, schedule), masks=MaskRequest(min_score))
    with detector, closing(source.frames()) as stream:
        for frame in tqdm(itertools.islice(stream, frames), desc="figure", total=frames, unit="frame"):
            if frame.index == 0:
                run.dense_gflops = _dense_cost(cfg, model, frame)
                # Drawn as large as it is shown, so that letters and lines have the size that they should have.
                painter.enlarge = WIDTH_INCHES * DOTS_PER_INCH / len(run.wanted) / frame.image.shape[1]
            result = detector.detect(frame)
            run.add(result, schedule.before_frame(frame.index).r)
            if frame.index in run.wanted:
                run.pictures[frame.index] = painter.draw_frame(frame, result)
        reached = sum(start < len(run.r) for start in starts)
        if len(run.pictures) < reached:  # the video ended within a stretch, before its middle
            run.pictures[frame.index] = painter.draw_frame(frame, result)
    if reached < len(starts):
        logger.warning("the video ends after %d frames, so %s was not reached", len(run.r), schedule.steps[reached][1])
    return run


def _dense_cost(cfg: CfgNode, model: nn.Module, frame: SourceFrame) -> tuple[float, float]:
    with dense_detector(cfg, model) as dense:
        cost = dense.detect(frame).cost
    return cost.backbone_gflops, cost.total_gflops


def plot_run(run: BudgetRun, path: str, title: str = "") -> None:
    """Write the figure as a PNG. Raises DataError for a run of a video without frames."""
    pictures = sorted(run.pictures.items())
    if not pictures:
        raise DataError("the video has no frames, so there is nothing to draw")
    aspect = pictures[0][1].shape[0] / pictures[0][1].shape[1]
    height = WIDTH_INCHES / len(pictures) * aspect
    figure = Figure(figsize=(WIDTH_INCHES, height + 3.8), dpi=DOTS_PER_INCH, layout="constrained")
    rows = figure.add_gridspec(3, 1, height_ratios=[height, 1.2, 2.0])
    _show_pictures(figure, rows[0].subgridspec(1, len(pictures)), pictures, run)
    budget = figure.add_subplot(rows[1])
    cost = figure.add_subplot(rows[2], sharex=budget)
    _plot_budget(budget, run, [index for index, _ in pictures])
    _plot_cost(cost, run, [index for index, _ in pictures])
    if title:
        figure.suptitle(title, fontsize=11)
    write_figure(figure, path)


def _show_pictures(
    figure: Figure, cells: GridSpecFromSubplotSpec, pictures: Sequence[tuple[int, np.ndarray]], run: BudgetRun
) -> None:
    for position, (index, picture) in enumerate(pictures):
        axes = figure.add_subplot(cells[position])
        axes.imshow(picture[:, :, ::-1])
        axes.set_title(f"frame {index}, r = {run.r[index]} of {run.tokens}", fontsize=9)
        axes.set_axis_off()


def _plot_budget(axes: Axes, run: BudgetRun, marked: Sequence[int]) -> None:
    axes.step(range(len(run.r)), run.r, where="post", color="tab:orange")
    axes.set(ylabel="budget r")
    axes.set_ylim(0, 1.15 * max(run.r))
    axes.tick_params(labelbottom=False)
    _mark(axes, marked)


def _plot_cost(axes: Axes, run: BudgetRun, marked: Sequence[int]) -> None:
    frames = range(len(run.r))
    axes.step(frames, run.total_gflops, where="post", color="tab:gray", label="everything")
    axes.step(frames, run.backbone_gflops, where="post", color="tab:blue", label="backbone")
    for value, color in zip(run.dense_gflops, ("tab:blue", "tab:gray")):
        axes.axhline(value, color=color, linestyle=":", linewidth=1)
    axes.annotate("dense (dotted)", (len(run.r) - 1, run.dense_gflops[1]), ha="right", va="bottom", fontsize=8)
    axes.set(xlabel="frame", ylabel="GFlops per frame")
    axes.set_xlim(0, len(run.r) - 1)
    axes.set_ylim(0, 1.2 * max(run.dense_gflops))
    axes.legend(loc="center right", fontsize=8)
    _mark(axes, marked)


def _mark(axes: Axes, frames: Sequence[int]) -> None:
    """Where the pictures are from."""
    for frame in frames:
        axes.axvline(frame, color="black", linewidth=0.6, alpha=0.4)
    axes.grid(alpha=0.3)
