"""Controllers: what decides, frame by frame, how many tokens are updated. `control.py` carries their decisions out.

A controller never touches the model. It sees only what frames cost (`FrameCost`) and what the gates measured anyway, so
it costs nothing and, given the same costs, always decides the same.
"""

from __future__ import annotations

import logging
import math
import re
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eventful_vit import Policy, TopR
from eventful_vit.frame import GateTrace

from .errors import ConfigError
from .structures import FrameCost

LARGEST_STEP = 2.0
"""Factor by which a regulator changes r from one frame to the next, at most."""
SMALLEST_GAIN = 1 / 8
"""The smallest part of a correction that is made at once."""
LEAST_VARIABLE_PART = 1 / 8
"""At least this part of a frame's cost is taken to depend on r, so that no correction is too large by orders."""
STEADY_FRAMES = 3
"""So many frames on one side of the target in a row are no oscillation: corrections grow again, ..."""
NEAR = 0.02
"""... unless they are within this part of the target, where nothing has to be corrected quickly."""
SPIKE = 1.5
"""A frame that took this many times what the last one did may be an accident of the machine and is passed over, ..."""
SPIKE_DISTANCE = 10
"""... unless another one was within so many frames: what happens often is what frames take."""
AVERAGING_FRAMES = 60
"""Within how many frames a surplus of GFlops, such as a flush, is paid back; and what a reached cost is the mean of."""
QUALITY_FLOOR = 1 / 16
"""Share of a frame's tokens that a target is not held below, where R_MIN says nothing: see docs/runtime-control.md."""
OUT_OF_REACH_FRAMES = 15
"""So many frames beyond the target in a row, at the bound of r, are worth a message."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bounds:
    """Smallest and largest r; 0 for the largest stands for all tokens, 0 for the smallest for QUALITY_FLOOR of them
    where a target is held, and for none where it is not."""

    r_min: int = 0
    r_max: int = 0

    def __post_init__(self) -> None:
        if self.r_min < 0 or self.r_max < 0:
            raise ConfigError(f"R_MIN and R_MAX must be 0 or larger, found {self.r_min} and {self.r_max}")
        if self.r_max and self.r_max < self.r_min:
            raise ConfigError(f"R_MAX = {self.r_max} is below R_MIN = {self.r_min}")

    def clamp(self, r: float) -> float:
        """The nearest value within the bounds."""
        return max(self.r_min, min(r, self.r_max or math.inf))

    def floor(self, tokens: int) -> int:
        """The least r, at least 1, that a target may lead to, of frames of so many tokens."""
        return max(1, min(self.r_min or int(QUALITY_FLOOR * tokens), self.r_max or tokens))


@dataclass(frozen=True)
class TargetState:
    """How a target is held."""

    unit: str
    """Of a frame's cost: "ms" or "GFlops"."""
    target: float
    reached: float | None
    """Mean cost of the last AVERAGING_FRAMES frames that count; None before one."""
    r: int
    """Tokens that the next frame updates."""

    def __str__(self) -> str:
        reached = "no frame yet" if self.reached is None else f"reached {self.reached:.3g} {self.unit}"
        return f"target {self.target:g} {self.unit} per frame: {reached} with r = {self.r} in the end"


class Controller:
    """Decides, frame by frame, which tokens are updated."""

    def before_frame(self, index: int) -> Policy:
        """The policy of the frame that comes next; `index` counts the frames of the run from 0."""
        raise NotImplementedError

    def after_frame(self, cost: FrameCost, gates: Mapping[str, GateTrace]) -> None:
        """Learn from an eventful frame: its cost, and what the model's gates saw and chose."""

    @property
    def state(self) -> TargetState | None:
        """How the target is held; None without one."""
        return None


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
        if ":" not in text:
            dense = "; for the dense model, set MODEL.EVENTFUL.ENABLED False" if text.strip() == "dense" else ""
            raise ConfigError(f"{text!r} is neither a number of tokens nor a schedule such as 0:512,120:128{dense}")
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
    with a noisy clock or frames that are cheap and dear in turn, only a part of that correction is made, in
    proportion to the distance from the target: above and below cancel out where the mean is the target.
    """

    unit = ""

    def __init__(self, target: float, start: int, bounds: Bounds) -> None:
        """
        Args:
            target: what a frame should cost, in the regulator's unit; above 0.
            start: r of the first frames.
        """
        self.target = target
        self.bounds = bounds
        self._r = max(1.0, bounds.clamp(start))
        self._was_above: bool | None = None
        self._steady = 0  # frames on this side of the target in a row
        self._usual_variable = 0.0
        self._costs: deque[float] = deque(maxlen=AVERAGING_FRAMES)
        self._at_floor = 0  # frames in a row
        self._said = False

    def before_frame(self, index: int) -> Policy:
        return TopR(round(self._r))

    @property
    def target(self) -> float:
        """What a frame should cost; may be changed between any two frames. ConfigError unless it is above 0."""
        return self._target

    @target.setter
    def target(self, value: float) -> None:
        if not 0 < value < math.inf:
            raise ConfigError(f"a target is a number above 0, found {value:g} {self.unit}")
        self._target = value
        self._gain = 1.0  # part of the correction that is made; the way to another target is no oscillation

    @property
    def state(self) -> TargetState:
        reached = statistics.fmean(self._costs) if self._costs else None
        return TargetState(self.unit, self.target, reached, round(self._r))

    def _correct(self, fixed: float, variable: float, wanted: float, tokens: int) -> None:
        """Adapt r after a frame that cost `fixed + variable` where `wanted` is aimed at."""
        self._adapt_gain((fixed + variable - wanted) / wanted if wanted > 0 else math.inf)
        # Of many frames, so that what is above and what is below the target is measured by the same scale.
        self._usual_variable += max(self._gain, SMALLEST_GAIN) * (variable - self._usual_variable)
        scale = max(self._usual_variable, LEAST_VARIABLE_PART * (fixed + variable), 1e-9)
        change = (wanted - fixed - variable) / scale
        ratio = min(max(1 + self._gain * change, 1 / LARGEST_STEP), LARGEST_STEP)
        floor = self.bounds.floor(tokens)
        self._r = max(floor, self.bounds.clamp(min(self._r * ratio, tokens)))
        self._say_if_out_of_reach(floor)

    def _adapt_gain(self, excess: float) -> None:
        """Learn from how far a frame was above what was wanted, as a part of it."""
        above = excess > 0
        if above == self._was_above:
            self._steady += 1
            if self._steady >= STEADY_FRAMES and abs(excess) > NEAR:
                self._gain = min(1.5 * self._gain, 1.0)
        else:
            self._gain = max(self._gain / 2, SMALLEST_GAIN) if self._was_above is not None else self._gain
            self._was_above, self._steady = above, 1

    def _say_if_out_of_reach(self, floor: int) -> None:
        self._at_floor = self._at_floor + 1 if self._r <= floor else 0
        if self._at_floor == 0:
            self._said = False
        recent = statistics.fmean(list(self._costs)[-OUT_OF_REACH_FRAMES:])
        if self._at_floor > OUT_OF_REACH_FRAMES and recent > 1.05 * self.target and not self._said:
            self._said = True
            logger.warning(
                "the target of %g %s per frame is out of reach: at the smallest budget, %d tokens, a frame takes "
                "%.3g %s (MODEL.EVENTFUL.CONTROLLER.R_MIN, 0 for a sixteenth of the tokens, is the floor on quality)",
                self.target,
                self.unit,
                floor,
                recent,
                self.unit,
            )


class LatencyController(Regulator):
    """Holds a time per frame: the model's time, without reading and drawing.

    Flush frames are left out, as no budget makes them faster. A single slow frame, which the machine may cause, is
    passed over; a second one soon after it counts.
    """

    unit = "ms"

    def __init__(self, target: float, start: int, bounds: Bounds | None = None) -> None:
        super().__init__(target, start, bounds or Bounds())
        self._expected: float | None = None
        self._since_spike = SPIKE_DISTANCE

    def after_frame(self, cost: FrameCost, gates: Mapping[str, GateTrace]) -> None:
        if cost.flushed:
            return
        backbone, total = 1000 * cost.backbone_seconds, 1000 * cost.total_seconds
        self._costs.append(total)
        is_slow = self._expected is not None and total > SPIKE * self._expected
        is_rare = self._since_spike >= SPIKE_DISTANCE
        self._since_spike = 0 if is_slow else self._since_spike + 1
        if is_slow and is_rare:
            return
        self._expected = total
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

    def after_frame(self, cost: FrameCost, gates: Mapping[str, GateTrace]) -> None:
        total = cost.total_gflops
        self._costs.append(total)
        limit = self.target * self.averaging_frames / 2
        self._saved = min(max(self._saved + self.target - total, -limit), limit)
        if cost.flushed:
            return
        backbone, wanted = cost.backbone_gflops, self.target + self._saved / self.averaging_frames
        self._correct(total - backbone, backbone, wanted, count_tokens(gates))


def count_tokens(gates: Mapping[str, GateTrace]) -> int:
    """N, the number of tokens of a frame."""
    return next(iter(gates.values())).selection.tokens
