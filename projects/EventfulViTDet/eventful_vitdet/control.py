"""The budget while a video runs: a schedule, a latency target, an average GFlops target, and a floor on quality.

A controller decides (controllers.py); `RuntimeControl` carries its decisions out, through `set_policy` and `reset`
only, and flushes after scene cuts (scene_cuts.py).

Example:
    >>> control = build_runtime_control(cfg, model)
    >>> for index, frame in enumerate(frames):
    ...     control.before_frame(index)
    ...     output, cost = run(model, frame)
    ...     control.after_frame(cost)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from detectron2.config import CfgNode
from eventful_vit import FrameTrace, Policy, TopR

from .controllers import Bounds, Constant, Controller, GFlopsController, LatencyController, Schedule
from .errors import ConfigError
from .modeling.backbone import build_policy
from .scene_cuts import SceneCuts
from .structures import FrameCost, TokenGrid

PREFIX = "MODEL.EVENTFUL.CONTROLLER"
CONTROLLERS = ("", "schedule", "latency", "gflops")


class Controllable(Protocol):
    """What is needed of a model; a VideoRCNN is one."""

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

    def after_frame(self, cost: FrameCost, trace: FrameTrace | None, grid: TokenGrid | None = None) -> bool:
        """Tell the controller what the frame cost and what its gates saw; returns whether a scene cut was seen.

        `grid` is that of the frame's tokens, needed where frames are padded. After a cut the model is reset before the
        next frame, which is computed in full. Frames of the dense model, without a trace, say nothing about budgets and
        are passed over.
        """
        if trace is None:
            return False
        gates = trace.gates
        self.controller.after_frame(cost, gates)
        self._flush_next = self.cuts.seen(gates, grid)
        return self._flush_next


def budget_options(schedule: str | None) -> list[str]:
    """A schedule from the command line as KEY VALUE pairs of the configuration; none for None.

    Raises ConfigError, quoting what is wrong.
    """
    if schedule is None:
        return []
    with _errors_of("--budget"):
        written = str(Schedule.parse(schedule))  # a single number as a text too, as the key is one
    return [f"{PREFIX}.NAME", "schedule", f"{PREFIX}.SCHEDULE", written]


def build_controller(cfg: CfgNode) -> Controller:
    """The controller that MODEL.EVENTFUL.CONTROLLER asks for. Raises ConfigError, naming the key."""
    eventful = cfg.MODEL.EVENTFUL
    keys = eventful.CONTROLLER
    if keys.NAME not in CONTROLLERS:
        known = ", ".join(map(repr, CONTROLLERS))
        raise ConfigError(f"{PREFIX}.NAME = {keys.NAME!r} is unknown; choose one of {known}")
    bounds = build_bounds(cfg)
    if not keys.NAME:
        return Constant(build_policy(cfg))
    builders = {
        "schedule": ("SCHEDULE", lambda: Schedule.parse(keys.SCHEDULE)),
        "latency": ("TARGET_MS", lambda: LatencyController(keys.TARGET_MS, eventful.R, bounds)),
        "gflops": ("TARGET_GFLOPS", lambda: GFlopsController(keys.TARGET_GFLOPS, eventful.R, bounds)),
    }
    key, build = builders[keys.NAME]
    with _errors_of(f"{PREFIX}.{key}"):
        return build()


def build_bounds(cfg: CfgNode) -> Bounds:
    """The bounds of r from the configuration. Raises ConfigError, naming the keys."""
    keys = cfg.MODEL.EVENTFUL.CONTROLLER
    with _errors_of(PREFIX):
        return Bounds(keys.R_MIN, keys.R_MAX)


def build_runtime_control(cfg: CfgNode, model: Controllable) -> RuntimeControl:
    """All that MODEL.EVENTFUL.CONTROLLER asks for, ready to steer `model`. Raises ConfigError, naming the key."""
    with _errors_of(PREFIX):
        cuts = SceneCuts(cfg.MODEL.EVENTFUL.CONTROLLER.SCENE_CUT)
    return RuntimeControl(model, build_controller(cfg), build_bounds(cfg), cuts)


@contextmanager
def _errors_of(place: str) -> Iterator[None]:
    """Errors of a configuration say where its value is from: a key, keys, or an option."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error
