"""The live page's session of a detector: one camera, or several as one batch of streams."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import numpy as np
from detectron2.config import CfgNode
from torch import nn

from ..batch_detector import BatchDetector
from ..budgets import DENSE
from ..control import RuntimeControl, build_runtime_control
from ..draw.boxes import class_color, class_name
from ..draw.tokens import updated_share
from ..masks import MaskRequest, outline_mask
from ..predictor import FrameResult, VideoDetector, dense_twin
from ..shown_score import SHOWN_SCORE
from ..structures import SourceFrame
from ..video import FileSource, VideoSource
from .session import LiveSession
from .settings import Look, Settings
from .updates import EVENTFUL, FLUSH, Cost, GridUpdate, Picture, ShownImage

LEAST_SCORE = 0.05
MASKS = MaskRequest(SHOWN_SCORE)
"""Of models that have masks: those of the detections that a page shows unless its viewer asks for weaker ones."""
FIRST_WIDTH = 320
"""Pixels of a tile's picture, before a page has told how wide its tiles are."""


class DetectorSession(LiveSession):
    """Plays one source through a VideoRCNN."""

    def __init__(
        self, cfg: CfgNode, model: nn.Module, sources: Sequence[VideoSource], classes: Sequence[str], **options
    ) -> None:
        """
        Args:
            classes: their names.
            options: of LiveSession.
        """
        super().__init__(cfg, model, build_runtime_control(cfg, model), sources, **options)
        self._classes = classes
        self._beside = ExitStack()
        self._dense: VideoDetector | BatchDetector | None = None

    def _make_detector(self, model: nn.Module, control: RuntimeControl) -> VideoDetector | BatchDetector:
        return VideoDetector(self._cfg, model, control, masks=MASKS)

    def _detect(self, detector: VideoDetector, frames: Mapping[int, SourceFrame]) -> dict[int, FrameResult]:
        return {number: detector.detect(frame) for number, frame in frames.items()}

    @contextmanager
    def _open_model(self) -> Iterator[VideoDetector | BatchDetector]:
        with self._make_detector(self._model, self._control) as detector, self._beside:
            yield detector

    def _show(self, detector: VideoDetector | BatchDetector, frames: Mapping[int, SourceFrame]) -> None:
        settings = self._apply_settings()
        began = self._clock()
        results = self._detect(detector, frames)
        dense = self._detect_densely(frames, settings)
        pictures = {}
        for number, frame in frames.items():
            camera, result, beside = self.cameras[number], results[number], dense.get(number)
            camera.add_cost(_cost(camera.next_serial, result, beside))
            pictures[number] = self._picture(frame, result, beside)
        tokens = {number: result.token_grid[0] * result.token_grid[1] for number, result in results.items()}
        self._publish(frames, began, pictures, tokens)

    def _detect_densely(self, frames: Mapping[int, SourceFrame], settings: Settings) -> dict[int, FrameResult]:
        """The dense model's results beside the eventful ones, where they are asked for."""
        if not (settings.beside and settings.eventful):
            self._beside.close()
            self._dense = None
            return {}
        if self._dense is None:
            self._dense = self._beside.enter_context(self._make_detector(*dense_twin(self._model)))
        return self._detect(self._dense, frames)

    def _picture(self, frame: SourceFrame, result: FrameResult, dense: FrameResult | None) -> Picture:
        height, width = frame.image.shape[:2]
        tokens, updated = None, 1.0
        if result.budget != DENSE:
            share = updated_share(result.gates, list(result.gates), result.token_grid)
            tokens, updated = np.round(255 * share).astype(np.uint8), float(share.mean())
        return Picture(
            ShownImage(frame.image),
            frame.name,
            frame.index,
            frame.seconds,
            width,
            height,
            tuple(self._describe(result)),
            tuple(self._describe(dense)) if dense is not None else None,
            result.budget,
            tokens,
            result.token_area,
            updated,
        )

    def _describe(self, result: FrameResult) -> list[dict]:
        """The detections for the page, the best first."""
        found = result.detections
        described = []
        for i in np.argsort(-found.scores, kind="stable"):
            score, index = float(found.scores[i]), int(found.classes[i])
            if score < LEAST_SCORE:
                break
            name = class_name(self._classes, index)
            blue, green, red = class_color(index)
            box = [round(float(v), 1) for v in found.boxes[i]]
            described.append({"class": name, "score": round(score, 3), "box": box, "color": [red, green, blue]})
            if found.masks is not None:
                described[-1]["outline"] = outline_mask(found.masks[i], found.boxes[i])
        return described


class GridSession(DetectorSession):
    """Plays several sources through a VideoRCNN, as one batch of streams; each has a state of its own.

    One that ends, begins again or breaks leaves the others as they are.
    """

    def __init__(
        self, cfg: CfgNode, model: nn.Module, sources: Sequence[VideoSource], classes: Sequence[str], **options
    ) -> None:
        """As of a DetectorSession."""
        super().__init__(cfg, model, sources, classes, **options)
        self._names = tuple(short_names([_place_of(source) for source in sources]))

    def first_look(self) -> Look:
        return Look(None, FIRST_WIDTH)

    def _make_detector(self, model: nn.Module, control: RuntimeControl) -> BatchDetector:
        return BatchDetector(self._cfg, model, control, masks=MASKS)

    def _detect(self, detector: BatchDetector, frames: Mapping[int, SourceFrame]) -> dict[int, FrameResult]:
        return detector.detect(frames)

    def _news(self) -> GridUpdate:
        updates = tuple(camera.update for camera in self.cameras)
        seekable = any(update.limits.seekable for update in updates)
        return GridUpdate(
            self._orders.settings,
            replace(self._orders.limits, seekable=seekable),
            self._names,
            updates,
            tuple(camera.full_gflops for camera in self.cameras),
            sum(update.frames_per_second for update in updates),
        )


def short_names(names: Sequence[str]) -> list[str]:
    """The last parts of paths and addresses, as many of each as tell it from the others."""
    parts = [name.rstrip("/\\").replace("\\", "/").split("/") for name in names]
    short = []
    for number, own in enumerate(parts):
        others = parts[:number] + parts[number + 1 :]
        length = next((n for n in range(1, len(own)) if all(own[-n:] != other[-n:] for other in others)), len(own))
        short.append("/".join(own[-length:]))
    return short


def _place_of(source: VideoSource) -> str:
    """The name of a source; of several videos, the folder that they are in."""
    several = isinstance(source, FileSource) and len(source.paths) > 1
    return os.path.commonpath(source.paths) if several else source.name


def _cost(serial: int, result: FrameResult, dense: FrameResult | None) -> Cost:
    kind = DENSE if result.budget == DENSE else FLUSH if result.cost.flushed else EVENTFUL
    return Cost(serial, *_gflops_and_ms(result), kind, None if dense is None else _gflops_and_ms(dense))


def _gflops_and_ms(result: FrameResult) -> tuple[float, float]:
    return result.cost.total_gflops, 1000 * result.cost.total_seconds
