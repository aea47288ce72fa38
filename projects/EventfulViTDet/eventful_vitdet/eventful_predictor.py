"""A detector for video in three lines: by the name of a model, or a configuration of one's own."""

from __future__ import annotations

import copy
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np
import torch
from eventful_vit import Policy, TopR

from .budgets import DENSE
from .class_lists import find_classes
from .config_files import build_cfg
from .control import build_runtime_control
from .controllers import Constant
from .errors import ConfigError
from .known_models import DEFAULT_MODEL, weights_settings
from .masks import NO_MASKS, MaskRequest, has_masks
from .predictions import Prediction
from .predictor import VideoDetector, class_names, load_detector, share_weights
from .shown_score import SHOWN_SCORE
from .structures import SourceFrame
from .video import VideoSource, check_part, open_source


class EventfulPredictor:
    """Detects objects in frames of a video, one after the other.

    Example:
        >>> predictor = EventfulPredictor("coco/mask_rcnn_vitdet_b", budget=256)
        >>> for result in predictor.stream("street.mp4"):
        ...     print(result.number, result.class_names, result.boxes)

    Frames of one's own are handed in one after the other, RGB; before another video, call `reset`:

        >>> result = predictor(frame)
    """

    def __init__(
        self,
        model: str | os.PathLike = DEFAULT_MODEL,
        *,
        weights: str | os.PathLike | None = None,
        budget: int | str | Policy | None = None,
        device: str | torch.device | None = None,
        classes: Sequence[str] | None = None,
        min_score: float = SHOWN_SCORE,
        masks: bool | None = None,
        options: Mapping[str, object] | None = None,
    ) -> None:
        """
        Args:
            model: a name that `eventful-vitdet models` lists, or the path of a configuration file.
            weights: a file or an address; by default the model's own, which are fetched on first use.
            budget: see `budget`.
            device: "cpu", "cuda", ...; by default a GPU where there is one.
            classes: names of the classes to give; by default all.
            min_score: weaker detections are left out.
            masks: whether to compute masks; by default where the model has them.
            options: further keys of the configuration with their values, such as {"INPUT.MIN_SIZE_TEST": 800}.

        Raises:
            ConfigError: what was asked for does not exist; the message says what does.
            CheckpointError: the weights cannot be fetched or used.
        """
        name = os.fspath(model)
        pairs = [*weights_settings(name, weights), *itertools.chain.from_iterable((options or {}).items())]
        if device is not None:
            pairs += ["MODEL.DEVICE", str(device)]
        cfg = self._cfg = build_cfg(name, pairs)
        if not cfg.MODEL.WEIGHTS:
            raise ConfigError(f"{name}: names no weights; give them: weights=FILE (see docs/models.md)")
        if not 0 <= min_score <= 1:
            raise ConfigError(f"min_score must be from 0 to 1, found {min_score}")
        self.model_classes: tuple[str, ...] = tuple(class_names(cfg))
        """Names of all classes that the model knows, by their numbers."""
        self._min_score = min_score
        self._chosen = find_classes(self.model_classes, self.model_classes if classes is None else classes)
        self._model = load_detector(cfg)  # never run itself: detectors run copies that share its weights
        self._mask_request = self._choose_masks(name, masks)
        self._budget: int | str | Policy | None = None
        self._begin()
        self.budget = budget

    def _choose_masks(self, name: str, masks: bool | None) -> MaskRequest:
        if masks and not has_masks(self._model):
            raise ConfigError(f"{name}: the model has no masks; leave masks=True out, or choose one of configs/coco/")
        return NO_MASKS if masks is False else MaskRequest(self._min_score)

    def _begin(self) -> None:
        """Make the detector, with a state of its own; its hooks stay for as long as this object lives."""
        model = share_weights(self._model)
        self._control = build_runtime_control(self._cfg, model)
        self._configured = self._control.controller
        self._detector = VideoDetector(self._cfg, model, self._control, masks=self._mask_request).__enter__()
        self._sequences = itertools.count()
        self.reset()

    @property
    def budget(self) -> int | str | Policy | None:
        """How many tokens each gate updates per frame: a number, "dense" for the dense model, or a policy of
        `eventful_vit`; None leaves it to the configuration (MODEL.EVENTFUL). May be changed between any two frames."""
        return self._budget

    @budget.setter
    def budget(self, value: int | str | Policy | None) -> None:
        model = self._detector.model
        enabled = self._cfg.MODEL.EVENTFUL.ENABLED if value is None else value != DENSE
        controller = self._configured
        if value is not None and enabled:
            policy = _policy_of(value)
            try:
                model.set_policy(policy)
            except ValueError as error:
                raise ConfigError(f"budget: {error}") from error
            controller = Constant(policy)
        if enabled != model.enabled:
            model.reset()  # what was kept is of the frames before the dense ones
        model.enabled, self._control.controller, self._budget = enabled, controller, value

    def __call__(self, frame: np.ndarray | torch.Tensor, seconds: float | None = None) -> Prediction:
        """Detect objects in the next frame of a video.

        Args:
            frame: RGB uint8, an array (H, W, 3) or a tensor (3, H, W).
            seconds: when it is shown; the result has it too.

        Raises:
            ConfigError: it is no such frame.
        """
        image = _as_rgb(frame)
        number, self._number = self._number, self._number + 1
        # The parts of the package exchange BGR images; this is a view.
        given = SourceFrame(number, self._sequence, seconds or 0.0, image[:, :, ::-1], "frame")
        return replace(self._detect(given), image=image, seconds=seconds)

    def stream(
        self, source: str | os.PathLike | int, *, start: int = 0, end: int | None = None, every: int = 1
    ) -> Iterator[Prediction]:
        """Detect objects in the frames of a source, in order and in constant memory.

        Args:
            source: a video or image file, a folder or pattern of them, an address (rtsp://, http://, ...), or the
                number of a camera.
            start: number of the first frame.
            end: number of the frame to stop before.
            every: take every n-th frame.

        Raises:
            VideoReadError: it cannot be opened; in the midst, or after the last frame, what could not be read.
        """
        opened = open_source(os.fspath(source) if isinstance(source, (str, os.PathLike)) else str(source))
        check_part(opened, start, end, every)
        return self._run(opened, start, end, every)

    def _run(self, source: VideoSource, start: int, end: int | None, every: int) -> Iterator[Prediction]:
        before, sequence = None, 0
        with closing(source.frames(start, every)) as frames:
            for frame in frames:
                if end is not None and frame.index >= end:
                    return
                if frame.sequence != before:
                    before, sequence = frame.sequence, next(self._sequences)
                yield self._detect(replace(frame, sequence=sequence))

    def reset(self) -> None:
        """Begin another video: the next frame that is handed in has number 0 and is computed in full."""
        self._sequence = next(self._sequences)
        self._number = 0

    def streams(self, count: int) -> list[EventfulPredictor]:
        """So many predictors with the same weights, each for a video of its own, also in threads of their own.

        Each has a state and a budget; weights are in memory once.
        """
        if count < 1:
            raise ConfigError(f"the number of streams must be 1 or larger, found {count}")
        predictors = [copy.copy(self) for _ in range(count)]
        for predictor in predictors:
            predictor._begin()
            predictor.budget = self.budget
        return predictors

    def _detect(self, frame: SourceFrame) -> Prediction:
        result = self._detector.detect(frame)
        found = result.detections
        found = found.select((found.scores >= self._min_score) & self._chosen[found.classes])
        return Prediction(
            number=frame.index,
            seconds=frame.seconds,
            image=frame.image[:, :, ::-1],
            boxes=found.boxes,
            scores=found.scores,
            classes=found.classes,
            class_names=[self.model_classes[index] for index in found.classes],
            cost=result.cost,
            budget=result.budget,
            box_masks=found.masks,
        )


def _policy_of(budget: int | str | Policy) -> Policy:
    """The policy of a budget that is not "dense". Raises ConfigError."""
    if isinstance(budget, Policy):
        return budget
    is_number = isinstance(budget, (int, np.integer)) and not isinstance(budget, bool)
    if not is_number or budget < 0:
        raise ConfigError(f"a budget is a number of tokens, 'dense', or a policy such as TopR(128); found {budget!r}")
    return TopR(int(budget))


def _as_rgb(frame: np.ndarray | torch.Tensor) -> np.ndarray:
    """A frame as an array (H, W, 3). Raises ConfigError, saying what it is instead."""
    if isinstance(frame, torch.Tensor):
        image = frame.detach().cpu().numpy()
        image = image.transpose(1, 2, 0) if image.ndim == 3 else image
        wanted = "a tensor (3, H, W)"
    elif isinstance(frame, np.ndarray):
        image, wanted = frame, "an array (H, W, 3)"
    else:
        raise ConfigError(f"a frame is an array (H, W, 3) or a tensor (3, H, W), uint8; found a {type(frame).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape or image.dtype != np.uint8:
        raise ConfigError(f"a frame is {wanted} of uint8, RGB; found {tuple(frame.shape)} of {frame.dtype}")
    return image
