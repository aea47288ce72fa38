"""Recognising actions in a running video: an output for every step, over the steps of the last seconds."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
from eventful_vit import FrameTrace, Streams
from eventful_vit.models.vivit import probabilities
from torch import Tensor

from ..contention import fitting_threads
from ..modeling.video_classifier import VideoClassifier
from .step_counts import ClipCounts, count_clips, sum_categories

EARLY = 0.48
"""How much of an interval a frame may come before its time. Less than half, so that of 60 frames per second a model of
30 takes every second one from the first on, although time stamps are rounded."""


@dataclass(frozen=True)
class StepResult:
    """What a step of a running video gave."""

    step: int
    """Number of the step, from 0."""
    seconds: float
    """When the step's last frame was shown."""
    probabilities: dict[str, np.ndarray] | None
    """By head, (classes,); None until the window is full."""
    flushed: bool
    """The step was computed in full."""
    macs: dict[str, int]
    """Operations by category."""


class StreamingClassifier:
    """Slides the window of a VideoClassifier over a video, one step (a tubelet of frames) at a time.

    The spatial model continues from step to step and is never reset, so a step costs what changed in it; the temporal
    model runs on the features of the last steps. The middle of the picture is seen. A context manager: inside, the
    model is in eval mode.

    Example:
        >>> with StreamingClassifier(model, fps=30.0) as classifier:
        ...     for _, seconds, image in iterate_frames("video.mp4"):
        ...         result = classifier.add(image, seconds)
        ...         if result and result.probabilities:
        ...             print(seconds, result.probabilities["verb"].argmax())
    """

    def __init__(self, model: VideoClassifier, fps: float) -> None:
        """
        Args:
            fps: frames per second that the model was made for (MODEL.VIVIT.FPS); 0: every frame counts. Frames that
                come faster are left out, those that are missing are replaced by the one before.
        """
        self.model = model
        self._interval = model.views.stride / fps if fps else 0.0
        self._state: Streams = model.vivit.spatial.new_state()
        self._frames: list[Tensor] = []
        self._window: deque[Tensor] = deque(maxlen=model.vivit.steps)
        self._size: tuple[int, int] | None = None
        self._next = self._last = 0.0
        self._skip = 0
        self._steps = 0

    def __enter__(self) -> StreamingClassifier:
        self._was_training = self.model.training
        self.model.eval()
        self._counting = count_clips(self.model.vivit)
        self._counts: ClipCounts = self._counting.__enter__()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._counting.__exit__(*exc_info)
        self.model.train(self._was_training)

    @property
    def trace(self) -> FrameTrace | None:
        """What the gates of the spatial model saw in the last step; None for the dense model."""
        return self._state.trace if self.model.enabled else None

    def reset(self) -> None:
        """Begin again: another video, or a cut."""
        self._state.reset()
        self._frames.clear()
        self._window.clear()
        self._size = None
        self._skip = 0

    def add(self, image: np.ndarray, seconds: float) -> StepResult | None:
        """The next frame of the video, (H, W, 3) uint8, RGB, shown at `seconds`.

        Returns:
            A result where the frame completed a step; of several that a late frame completed, the last.

        Raises:
            ValueError: the size has changed, or time has gone backwards; call `reset` before another video.
        """
        self._check(image, seconds)
        frame = None
        result = None
        for _ in range(self._due(seconds)):
            if frame is None:
                prepared = self.model.views.prepare(torch.from_numpy(image).permute(2, 0, 1)[None])
                frame = self.model.views.centre(prepared)[0].to(self.model.device)
            self._frames.append(frame)
            if len(self._frames) == self.model.vivit.tubelet[0]:
                result = self._step(seconds)
        return result

    def _check(self, image: np.ndarray, seconds: float) -> None:
        if self._size is None:
            self._size, self._next, self._last = image.shape[:2], seconds, seconds
        if image.shape[:2] != self._size:
            raise ValueError(
                f"frames were {self._size} and are now {image.shape[:2]}; call reset() before another video"
            )
        if seconds < self._last:
            raise ValueError(f"a frame at {seconds:.3f} s after one at {self._last:.3f} s; call reset() first")
        self._last = seconds

    def _due(self, seconds: float) -> int:
        """How many of the model's frames this one stands for; after a long gap, as many as the window holds."""
        if not self._interval:
            due = 1 if self._skip == 0 else 0
            self._skip = (self._skip + 1) % self.model.views.stride
            return due
        due = max(0, math.floor((seconds - self._next) / self._interval + EARLY) + 1)
        self._next += due * self._interval
        return min(due, self.model.vivit.frames)

    def _step(self, seconds: float) -> StepResult:
        tubelet = torch.stack(self._frames)[None]
        self._frames.clear()
        self._counts.clear()
        with torch.no_grad(), fitting_threads(self.model.device):
            self._window.append(self.model.vivit.step_features(tubelet, self._state)[0])
            found = None
            if len(self._window) == self._window.maxlen:
                logits = self.model.vivit.classify(torch.stack(list(self._window))[None, None])
                found = {name: values[0].cpu().numpy() for name, values in probabilities(logits).items()}
        self._steps += 1
        flushed = self._counts.steps["flush"] > 0
        return StepResult(self._steps - 1, seconds, found, flushed, sum_categories(self._counts.macs()))
