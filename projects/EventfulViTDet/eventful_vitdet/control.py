"""The budget while a video runs: a schedule, a latency target, an average GFlops target, and a floor on quality.

A controller decides and never touches the model; `RuntimeControl` carries its decisions out, through `set_policy` and
`reset` alone. Controllers see only what frames cost (`FrameCost`) and what the gates measured anyway, so they cost
nothing and, given the same costs, always decide the same.

Example:
    >>> control = build_runtime_control(cfg, model)
    >>> for index, frame in enumerate(frames):
    ...     control.before_frame(index)
    ...     output, cost = run(model, frame)
    ...     control.after_frame(cost)
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from detectron2.config import CfgNode

from .errors import ConfigError
from .eventful import EventfulViT, Policy, TopR
from .eventful.gate import TokenGate
from .modeling.backbone import build_policy
from .structures import FrameCost

CONTROLLERS = ("", "schedule", "latency", "gflops")
LARGEST_STEP = 2.0
"""Factor by which a regulator changes r from one frame to the next, at most."""
SMALLEST_GAIN = 1 / 8
"""The smallest part of a correction, as an exponent, that is made at once."""
SPIKE = 1.5
"""A frame that took this many times what the last one did is believed when the next one does so too."""
AVERAGING_FRAMES = 60
"""Within how many frames a surplus of GFlops, such as a flush, is paid back."""
OUT_OF_REACH_FRAMES = 15
"""So many frames beyond the target in a row, at the bound of r, are worth a message."""
CUT_PART = 0.15
"""A cut moves the median token by at least this part of the largest recent error: a flicker of all pixels is no cut."""
FORGETTING = 0.95
"""What is left of a recent frame's figure one frame later, for telling a cut from what is usual."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bounds:
    """Smallest and largest r; 0 for the largest stands for all tokens."""

    r_min: int = 0
    r_max: int = 0

    def __post_init__(self) -> None:
        if self.r_min < 0 or self.r_max < 0:
            raise ConfigError(f"R_MIN and R_MAX are 0 or larger, found {self.r_min} and {self.r_max}")
        if self.r_max and self.r_max < self.r_min:
            raise ConfigError(f"R_MAX = {self.r_max} is below R_MIN = {self.r_min}")

    def clamp(self, r: float) -> float:
        """The nearest value within the bounds."""
        return max(self.r_min, min(r, self.r_max or math.inf))


class Controller:
    """Decides, frame by frame, which tokens are updated."""

    def before_frame(self, index: int) -> Policy:
        """The policy of the frame that comes next; `index` counts the frames of the run from 0."""
        raise NotImplementedError

    def after_frame(self, cost: FrameCost, gates: Mapping[str, TokenGate]) -> None:
        """Learn from an eventful frame: its cost, and the model's gates as it left them."""


class Constant(Controller):
    """Always the same policy, until somebody assigns another one to `policy`."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    def before_frame(self, index: int) -> Policy:
        return self.policy


class Schedule(Controller):
    """Budgets by frame number: each holds from its frame on.

    Example:
        >>> str(Schedule.parse("0:512,120:128").before_frame(150))
        'top-r 128'
    """

    def __init__(self, steps: Sequence[tuple[int, int]]) -> None:
        """
        Args:
            steps: (frame, r), ascending, beginning at frame 0.

        Raises:
            ConfigError: no steps, not from frame 0, or not ascending.
        """
        frames = [frame for frame, _ in steps]
        if not frames or frames[0] != 0:
            raise ConfigError("a schedule begins at frame 0")
        for before, frame in zip(frames, frames[1:]):
            if frame <= before:
                raise ConfigError(f"the frames of a schedule ascend, but {frame} follows {before}")
        self.steps = tuple((frame, TopR(r)) for frame, r in steps)

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """From text such as "0:512,120:128,240:2048" (frame:r), or a single r.

        Raises ConfigError, quoting what is wrong.
        """
        steps = []
        if re.fullmatch(r"[0-9]+", text.strip()):
            text = f"0:{text.strip()}"
        for word in text.split(","):
            found = re.fullmatch(r"\s*([0-9]+)\s*:\s*([0-9]+)\s*", word)
            if found is None:
                raise ConfigError(f"{word.strip()!r} in schedule {text!r} is not FRAME:TOKENS, such as 120:512")
            steps.append((int(found[1]), int(found[2])))
        try:
            return cls(steps)
        except ConfigError as error:
            raise ConfigError(f"schedule {text!r}: {error}") from error

    def __str__(self) -> str:
        return ",".join(f"{frame}:{policy.r}" for frame, policy in self.steps)

    def before_frame(self, index: int) -> Policy:
        return next(policy for frame, policy in reversed(self.steps) if frame <= index)


class Regulator(Controller):
    """Base of the controllers that hold a target: adapts the r of top-r after every frame.

    A frame costs a part that r does not change (embedding, pyramid, proposals, heads) and one that grows with r, but at
    most in proportion to it (the Transformer). So r is multiplied by what the second part should cost over what it did
    cost: from either side this approaches the target without passing it. Where frames lie now above, now below it, as
    with a noisy clock or a first part that is not constant after all, the steps become smaller.
    """

    unit = ""

    def __init__(self, target: float, start: int, bounds: Bounds) -> None:
        """
        Args:
            target: what a frame should cost, in the regulator's unit; above 0.
            start: r of the first frames.
        """
        if not 0 < target < math.inf:
            raise ConfigError(f"a target is a number above 0, found {target:g} {self.unit}")
        self.target = target
        self.bounds = bounds
        self._r = max(1.0, bounds.clamp(start))
        self._gain = 1.0  # exponent of the correction
        self._was_above: bool | None = None
        self._out_of_reach = 0

    def before_frame(self, index: int) -> Policy:
        return TopR(round(self._r))

    def _correct(self, fixed: float, variable: float, wanted: float, tokens: int) -> None:
        """Adapt r after a frame that cost `fixed + variable` where `wanted` is aimed at."""
        above = fixed + variable > wanted
        if self._was_above is not None:
            changed_sides = above != self._was_above
            self._gain = max(self._gain / 2, SMALLEST_GAIN) if changed_sides else min(1.5 * self._gain, 1.0)
        self._was_above = above
        ratio = max(wanted - fixed, 0.0) / max(variable, 1e-9)
        ratio = min(max(ratio, 1 / LARGEST_STEP), LARGEST_STEP)
        self._r = max(1.0, self.bounds.clamp(min(self._r * ratio**self._gain, tokens)))
        self._say_if_out_of_reach(fixed + variable)

    def _say_if_out_of_reach(self, cost: float) -> None:
        least = self._r <= max(1, self.bounds.r_min)
        self._out_of_reach = self._out_of_reach + 1 if least and cost > 1.05 * self.target else 0
        if self._out_of_reach == OUT_OF_REACH_FRAMES:
            logger.warning(
                "the target of %g %s per frame is out of reach: even with %d tokens, a frame takes %.3g %s",
                self.target,
                self.unit,
                round(self._r),
                cost,
                self.unit,
            )


class LatencyController(Regulator):
    """Holds a time per frame: the model's time, without reading and drawing.

    Flush frames are left out, as no budget makes them faster. A single slow frame, which the machine may cause, is
    ignored; a second one in a row counts.
    """

    unit = "ms"

    def __init__(self, target: float, start: int, bounds: Bounds | None = None) -> None:
        super().__init__(target, start, bounds or Bounds())
        self._expected: float | None = None

    def after_frame(self, cost: FrameCost, gates: Mapping[str, TokenGate]) -> None:
        if cost.flushed:
            return
        backbone, total = 1000 * cost.backbone_seconds, 1000 * cost.total_seconds
        spike = self._expected is not None and total > SPIKE * self._expected
        self._expected = None if spike else total
        if not spike:
            self._correct(total - backbone, backbone, self.target, count_tokens(gates))


class GFlopsController(Regulator):
    """Holds an average of GFlops per frame, flush frames included.

    What earlier frames took beyond the target is paid back over the next frames, and what they left over is
    spent. Surplus and debt are limited, so that a long time at a bound of r is not made up for later.
    """

    unit = "GFlops"

    def __init__(
        self, target: float, start: int, bounds: Bounds | None = None, averaging_frames: int = AVERAGING_FRAMES
    ) -> None:
        super().__init__(target, start, bounds or Bounds())
        self.averaging_frames = averaging_frames
        self._saved = 0.0  # GFlops; negative is a debt

    def after_frame(self, cost: FrameCost, gates: Mapping[str, TokenGate]) -> None:
        total = cost.total_gflops
        limit = self.target * self.averaging_frames / 2
        self._saved = min(max(self._saved + self.target - total, -limit), limit)
        if cost.flushed:
            return
        backbone, wanted = cost.backbone_gflops, self.target + self._saved / self.averaging_frames
        self._correct(total - backbone, backbone, wanted, count_tokens(gates))


class SceneCuts:
    """Notices that most of the picture was exchanged from one frame to the next.

    The first gate measures, for its own purpose, how far every token moved. This looks at the median over the tokens:
    at a cut it jumps to several times what it was in any recent frame, and to a good part of the largest error.
    """

    def __init__(self, ratio: float) -> None:
        """
        Args:
            ratio: a cut is a median error of more than this many times that of recent frames; 0 sees no cuts.
        """
        if not (ratio == 0 or ratio > 1):
            raise ConfigError(f"SCENE_CUT is 0 (off) or larger than 1, found {ratio:g}")
        self.ratio = ratio
        self._usual: float | None = None  # largest median of recent frames since the last flush
        self._largest = 0.0  # largest error of recent frames

    def seen(self, gates: Mapping[str, TokenGate]) -> bool:
        """Whether the frame that the gates saw last came after a cut; in stream 0."""
        norms = next(iter(gates.values())).norms
        if not self.ratio or norms is None or not bool(torch.isfinite(norms[0, 0])):
            self._usual = None
            return False
        median, largest = torch.stack([norms[0].median(), norms[0].max()]).tolist()
        self._largest = max(FORGETTING * self._largest, largest)
        usual, self._usual = self._usual, max(FORGETTING * (self._usual or 0.0), median)
        return usual is not None and median > self.ratio * usual and median > CUT_PART * self._largest


class Controllable(Protocol):
    """What is needed of a model; a VideoRCNN is one."""

    enabled: bool
    vit: EventfulViT

    def set_policy(self, policy: Policy) -> None: ...
    def reset(self) -> None: ...


class RuntimeControl:
    """Lets a controller steer a model, keeps r within bounds, and flushes after scene cuts."""

    def __init__(
        self,
        model: Controllable,
        controller: Controller,
        bounds: Bounds | None = None,
        cuts: SceneCuts | None = None,
    ) -> None:
        self.model = model
        self.controller = controller
        self.bounds = bounds or Bounds()
        self.cuts = cuts or SceneCuts(0)
        self._flush_next = False

    def before_frame(self, index: int) -> Policy:
        """Set and return the policy of the frame that comes next."""
        if self._flush_next:
            self._flush_next = False
            self.model.reset()
        policy = self.controller.before_frame(index)
        if isinstance(policy, TopR):
            policy = TopR(int(self.bounds.clamp(policy.r)))
        self.model.set_policy(policy)
        return policy

    def after_frame(self, cost: FrameCost) -> bool:
        """Tell the controller what the frame cost; returns whether a scene cut was seen.

        After a cut the model is reset before the next frame, which is computed in full; until then its gates still
        tell about this one. Frames of the dense model say nothing about budgets and are passed over.
        """
        if not self.model.enabled:
            return False
        gates = self.model.vit.gates()
        self.controller.after_frame(cost, gates)
        self._flush_next = self.cuts.seen(gates)
        return self._flush_next


def count_tokens(gates: Mapping[str, TokenGate]) -> int:
    """N, the number of tokens of a frame, as the gates saw it last."""
    selection = next(iter(gates.values())).selection
    if selection is None:
        raise ValueError("the gates have not seen a frame yet")
    return selection.tokens


def budget_options(schedule: str | None) -> list[str]:
    """A schedule from the command line as KEY VALUE pairs of the configuration; none for None.

    Raises ConfigError, quoting what is wrong.
    """
    if schedule is None:
        return []
    try:
        written = str(Schedule.parse(schedule))  # a single number as a text too, as the key is one
    except ConfigError as error:
        raise ConfigError(f"--budget: {error}") from error
    prefix = "MODEL.EVENTFUL.CONTROLLER"
    return [f"{prefix}.NAME", "schedule", f"{prefix}.SCHEDULE", written]


def build_controller(cfg: CfgNode) -> Controller:
    """The controller that MODEL.EVENTFUL.CONTROLLER asks for. Raises ConfigError, naming the key."""
    eventful = cfg.MODEL.EVENTFUL
    keys = eventful.CONTROLLER
    prefix = "MODEL.EVENTFUL.CONTROLLER"
    if keys.NAME not in CONTROLLERS:
        known = ", ".join(map(repr, CONTROLLERS))
        raise ConfigError(f"{prefix}.NAME = {keys.NAME!r} is unknown; choose one of {known}")
    bounds = build_bounds(cfg)
    builders = {
        "": ("NAME", lambda: Constant(build_policy(cfg))),
        "schedule": ("SCHEDULE", lambda: Schedule.parse(keys.SCHEDULE)),
        "latency": ("TARGET_MS", lambda: LatencyController(keys.TARGET_MS, eventful.R, bounds)),
        "gflops": ("TARGET_GFLOPS", lambda: GFlopsController(keys.TARGET_GFLOPS, eventful.R, bounds)),
    }
    key, build = builders[keys.NAME]
    try:
        return build()
    except ConfigError as error:
        if key == "NAME":
            raise
        raise ConfigError(f"{prefix}.{key}: {error}") from error


def build_bounds(cfg: CfgNode) -> Bounds:
    """The bounds of r from the configuration. Raises ConfigError, naming the keys."""
    keys = cfg.MODEL.EVENTFUL.CONTROLLER
    try:
        return Bounds(keys.R_MIN, keys.R_MAX)
    except ConfigError as error:
        raise ConfigError(f"MODEL.EVENTFUL.CONTROLLER: {error}") from error


def build_runtime_control(cfg: CfgNode, model: Controllable) -> RuntimeControl:
    """All that MODEL.EVENTFUL.CONTROLLER asks for, ready to steer `model`. Raises ConfigError, naming the key."""
    try:
        cuts = SceneCuts(cfg.MODEL.EVENTFUL.CONTROLLER.SCENE_CUT)
    except ConfigError as error:
        raise ConfigError(f"MODEL.EVENTFUL.CONTROLLER: {error}") from error
    return RuntimeControl(model, build_controller(cfg), build_bounds(cfg), cuts)
