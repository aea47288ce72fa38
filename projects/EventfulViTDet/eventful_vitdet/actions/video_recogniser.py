"""Actions in video outside of data sets: one picture after the other, as they come; steered as a detector is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
from detectron2.config import CfgNode
from eventful_vit import Policy

from ..budgets import DENSE
from ..control import build_runtime_control
from ..controllers import TargetState
from ..errors import DetectionError
from ..modeling.video_classifier import VideoClassifier
from ..structures import FrameCost, SourceFrame
from ..timing import timed_call
from .streaming_classifier import StepResult, StreamingClassifier

LISTED = 5
"""Classes of a head that a result has."""


@dataclass(frozen=True)
class ActionResult:
    """What a step gave."""

    step: int
    """Number of the step, from 0."""
    best: Mapping[str, Sequence[tuple[str, float]]] | None
    """By head, the likeliest classes and their scores, the best first; None until the window is full."""
    window: tuple[int, int]
    """Steps in the window, and those that a full one has."""
    cost: FrameCost
    """Of the step: all of its frames."""
    budget: str
    """What chose the tokens, such as "top-r 100"; "dense" for the dense model."""
    scene_cut: bool
    """A scene cut was seen, so the window begins again with the next frame."""
    target: TargetState | None = None
    """How a target of milliseconds or GFlops is held, where the controller has one."""


@dataclass(frozen=True)
class _Place:
    """Where a frame stands."""

    sequence: int
    size: tuple[int, int]
    index: int
    seconds: float

    def follows(self, last: _Place, longest_gap: float) -> bool:
        is_alike = (self.sequence, self.size) == (last.sequence, last.size)
        return is_alike and self.index > last.index and 0 <= self.seconds - last.seconds <= longest_gap


class VideoRecogniser:
    """Runs a VideoClassifier on the frames of a source, steered by what MODEL.EVENTFUL.CONTROLLER asks for.

    The window begins again where frames do not follow each other: another sequence or size, times that run back, or a
    gap longer than the window. A context manager: inside, the model is in eval mode and its operations are counted.

    Example:
        >>> with VideoRecogniser(cfg, model, action_names(cfg)) as recogniser, closing(source.frames()) as frames:
        ...     for frame in frames:
        ...         result = recogniser.recognise(frame)  # None where the frame completes no step
    """

    def __init__(
        self,
        cfg: CfgNode,
        model: VideoClassifier,
        names: Mapping[str, Sequence[str]],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """
        Args:
            names: of each head's classes, see `action_names`.
            clock: seconds; steps are timed by it.
        """
        self.model, self.names = model, names
        self._classifier = StreamingClassifier(model, cfg.MODEL.VIVIT.FPS)
        self.control = build_runtime_control(cfg, self)
        vivit = cfg.MODEL.VIVIT
        self._longest_gap = vivit.FRAMES * vivit.STRIDE / vivit.FPS if vivit.FPS else float("inf")
        self._clock = clock
        self._exit = ExitStack()
        self._last: _Place | None = None
        self.latest: ActionResult | None = None
        """The last step's result; None since a new beginning."""
        self._seconds = 0.0

    def __enter__(self) -> VideoRecogniser:
        self._exit.enter_context(self._classifier)
        self.reset()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._exit.close()

    # What a RuntimeControl steers.

    def set_policy(self, policy: Policy) -> None:
        """Exchange the policy, from the next step on."""
        self.model.set_policy(policy)

    def reset(self) -> None:
        """Begin again: the next step is a flush, and the window fills again."""
        self._classifier.reset()
        self._seen = 0
        self.latest = None
        self._seconds = 0.0

    @property
    def tokens(self) -> int:
        """Tokens of a step, with the class token."""
        (height, width), tubelet = self.model.vivit.img_size, self.model.vivit.tubelet
        return 1 + (height // tubelet[1]) * (width // tubelet[2])

    def recognise(self, frame: SourceFrame) -> ActionResult | None:
        """The next frame; a result where it completes a step.

        Raises DetectionError, naming the frame, if the model's scores are not finite.
        """
        place = _Place(frame.sequence, frame.image.shape[:2], frame.index, frame.seconds)
        if self._last is not None and not place.follows(self._last, self._longest_gap):
            self.reset()
        self._last = place
        policy = self.control.before_frame(frame.index)
        image = np.ascontiguousarray(frame.image[..., ::-1])
        step, seconds = timed_call(lambda: self._classifier.add(image, frame.seconds), self.model.device, self._clock)
        self._seconds += seconds
        if step is None:
            return None
        self.latest = self._result(frame, step, policy)
        return self.latest

    def _result(self, frame: SourceFrame, step: StepResult, policy: Policy) -> ActionResult:
        eventful = self.model.enabled
        cost = FrameCost(eventful and step.flushed, step.macs, self._seconds, self._seconds)
        self._seconds = 0.0
        self._seen += 1
        cut = self.control.after_frame(cost, self._classifier.trace)
        steps = self.model.vivit.steps
        return ActionResult(
            step=step.step,
            best=None if step.probabilities is None else self._best(frame, step.probabilities),
            window=(steps if step.probabilities is not None else min(self._seen, steps - 1), steps),
            cost=cost,
            budget=str(policy) if eventful else DENSE,
            scene_cut=cut,
            target=self.control.controller.state if eventful else None,
        )

    def _best(self, frame: SourceFrame, found: Mapping[str, np.ndarray]) -> dict[str, list[tuple[str, float]]]:
        best = {}
        for head, scores in found.items():
            if not np.isfinite(scores).all():
                raise DetectionError(
                    f"the model gave scores that are not finite for frame {frame.index} of {frame.name}"
                )
            order = np.argsort(-scores, kind="stable")[:LISTED]
            best[head] = [(self.names[head][i], float(scores[i])) for i in order]
        return best
