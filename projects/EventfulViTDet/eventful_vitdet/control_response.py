"""How quickly a controller reaches a new target, how far it goes past it, and which scene cuts are seen."""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from detectron2.config import CfgNode
from torch import nn
from tqdm import tqdm

from .control import RuntimeControl
from .controllers import Bounds, GFlopsController, LatencyController, Regulator
from .errors import ConfigError
from .markdown_table import format_table
from .predictor import VideoDetector
from .structures import FrameCost
from .video import VideoSource

REGULATORS = {"latency": LatencyController, "gflops": GFlopsController}
TOLERANCE = 0.1
SMOOTHING_FRAMES = 5


@dataclass(frozen=True)
class StepResponse:
    """What followed one change of the target. Costs are in its unit; flush frames are left out but of the mean."""

    target: float
    reached_after: int | None
    """Frames until the cost is within 10 % of the target (medians of 5 frames); None: it never is."""
    settled_after: int | None
    """Frames until it stays there; None: it never does. A clock that is noisy itself leaves the band now and then."""
    overshoot: float
    """How far these medians go past the target, as a part of it; 0.1 is 10 %."""
    mean: float
    """Mean over all frames, flush frames included."""
    mean_r: float
    """Mean r of the second half."""
    costs: tuple[float, ...] = ()
    """Of all frames, flush frames included."""
    r: tuple[int, ...] = ()
    """Tokens per gate, of all frames."""
    flushed: tuple[bool, ...] = ()
    """Which of them are flush frames."""


def step_response(costs: Sequence[float], target: float, before: float) -> tuple[int | None, int | None, float]:
    """`reached_after`, `settled_after` and `overshoot` of a series of costs.

    Args:
        costs: one per frame, beginning with the first under the new target; none where all frames were flushes.
        before: the cost before the change, which tells the side that the target is approached from.
    """
    half = SMOOTHING_FRAMES // 2
    smooth = [statistics.median(costs[max(0, i - half) : i + half + 1]) for i in range(len(costs))]
    inside = [abs(cost - target) <= TOLERANCE * target for cost in smooth]
    reached = inside.index(True) if True in inside else None
    settled = len(inside) - inside[::-1].index(False) if False in inside else 0
    past = [target - cost if before > target else cost - target for cost in smooth]
    return reached, (settled if settled < len(costs) else None), max([0.0, *past]) / target


def measure_responses(
    cfg: CfgNode, model: nn.Module, source: VideoSource, name: str, targets: Sequence[float], frames: int
) -> list[StepResponse]:
    """Run a model over a source under a controller ("latency" or "gflops") whose target changes every `frames` frames.

    Raises ConfigError if the source ends before the last target's turn is over.
    """
    controller: Regulator = REGULATORS[name](targets[0], cfg.MODEL.EVENTFUL.R, Bounds(r_min=1))
    responses: list[StepResponse] = []
    last = float("inf")
    detector = VideoDetector(cfg, model, RuntimeControl(model, controller))
    bar = tqdm(total=len(targets) * frames, desc=name, unit="frame")
    with detector, closing(source.frames()) as stream, bar:
        for target in targets:
            controller.target = target
            results = []
            for frame in itertools.islice(stream, frames):
                results.append(detector.detect(frame))
                bar.update()
            if len(results) < frames:
                raise ConfigError(f"{source.name} has too few frames for {len(targets)} targets of {frames} frames")
            costs = tuple(cost_in_unit(name, result.cost) for result in results)
            flushed = tuple(result.cost.flushed for result in results)
            later = [cost for cost, flush in zip(costs, flushed) if not flush]
            r = tuple(int(result.budget.split()[-1]) for result in results)
            means = statistics.fmean(costs), statistics.fmean(r[frames // 2 :])
            responses.append(StepResponse(target, *step_response(later, target, last), *means, costs, r, flushed))
            last = statistics.median(later) if later else last
    return responses


def cost_in_unit(name: str, cost: FrameCost) -> float:
    """What a controller regulates: milliseconds, or GFlops, of the whole frame."""
    return 1000 * cost.total_seconds if name == "latency" else cost.total_gflops


def format_responses(name: str, responses: Sequence[StepResponse]) -> str:
    """A markdown table, a row per target."""
    unit = REGULATORS[name].unit
    rows = [
        (
            f"{response.target:g}",
            *("never" if n is None else str(n) for n in (response.reached_after, response.settled_after)),
            f"{100 * response.overshoot:.1f} %",
            f"{response.mean:.3g}",
            f"{response.mean_r:.0f}",
        )
        for response in responses
    ]
    return format_table((f"target, {unit}", "frames to reach", "to settle", "overshoot", f"mean, {unit}", "r"), rows)


@dataclass
class SceneCutCounts:
    """Which joints of several videos, shown as if they were one, were seen as scene cuts."""

    joints: int = 0
    seen: int = 0
    elsewhere: list[str] = field(default_factory=list)
    """Cuts seen within a video, as "file: frame"."""

    def __str__(self) -> str:
        places = f" ({', '.join(self.elsewhere)})" if self.elsewhere else ""
        return f"{self.seen} of {self.joints} joints seen as scene cuts, and {len(self.elsewhere)} elsewhere{places}"


def count_scene_cuts(cfg: CfgNode, model: nn.Module, source: VideoSource, frames: int) -> SceneCutCounts:
    """Run a model over the first `frames` frames of every video of a source, as if all were one video.

    Budget and sensitivity are those of MODEL.EVENTFUL and its CONTROLLER.
    """
    counts = SceneCutCounts()
    sequence, index, position = 0, 0, -1
    with VideoDetector(cfg, model) as detector, closing(source.frames()) as stream:
        for frame in tqdm(stream, desc="scene cuts", unit="frame"):
            begins = frame.sequence != sequence
            sequence, position = frame.sequence, 0 if begins else position + 1
            counts.joints += begins
            if position >= frames:
                continue
            seen = detector.detect(replace(frame, index=index, sequence=0)).scene_cut
            index += 1
            counts.seen += seen and begins
            if seen and not begins:
                counts.elsewhere.append(f"{os.path.basename(frame.name)}: {position}")
    return counts
