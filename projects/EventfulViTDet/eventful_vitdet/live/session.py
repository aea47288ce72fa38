"""The detector at work: one thread that reads frames, runs the model and publishes what came of it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from detectron2.config import CfgNode
from eventful_vit import TopR
from torch import nn

from ..budgets import DENSE
from ..control import build_runtime_control
from ..controllers import Constant, Controller, LatencyController
from ..draw.boxes import class_color, class_name
from ..draw.tokens import updated_share
from ..errors import LiveError, describe_error, is_for_user
from ..predictor import FrameResult, VideoDetector, dense_detector
from ..structures import SourceFrame
from ..video import StreamSource, VideoSource, encode_jpeg
from .broadcast import Broadcast
from .settings import Limits, Settings, change_settings, check_seek

HISTORY = 300
"""Frames that the charts show."""
MAX_WIDTH = 1280
"""Pixels; wider frames are sent reduced. The model sees them whole."""
JPEG_QUALITY = 85
NOTICE_SECONDS = 5.0
STOP_SECONDS = 0.75
"""A thread that is in a frame of a large model, or waits for a lost stream, may take longer to end."""
LEAST_SCORE = 0.05
EVENTFUL, FLUSH = "eventful", "flush"
"""Kinds of frames beside budgets.DENSE."""


@dataclass(frozen=True)
class Cost:
    """What a frame cost, for the charts."""

    serial: int
    """Counts the frames of this session."""
    gflops: float
    milliseconds: float
    kind: str
    """EVENTFUL, or computed in full: as a FLUSH, or by the DENSE model."""
    dense: tuple[float, float] | None = None
    """GFlops and milliseconds of the dense model on the same frame, where it ran beside the eventful one."""


@dataclass(frozen=True)
class Picture:
    """A frame and what was found in it."""

    jpeg: bytes
    name: str
    index: int
    seconds: float
    width: int
    height: int
    """Pixels of the original frame, which boxes are given in."""
    detections: tuple[dict, ...]
    dense_detections: tuple[dict, ...] | None
    """What the dense model found, where it ran beside the eventful one."""
    budget: str
    tokens: np.ndarray | None
    """(h, w) uint8, by how many of the gates updated each token; None in a dense frame."""
    token_area: tuple[float, float]
    """Height and width that all tokens cover, in pixels of the original frame."""
    actions: tuple[dict, ...] | None = None
    """What is seen, by head; None where the model is a detector."""


@dataclass(frozen=True)
class Update:
    """All that a viewer has to know, at one moment."""

    settings: Settings
    limits: Limits
    picture: Picture | None = None
    costs: tuple[Cost, ...] = ()
    frames_per_second: float = 0.0
    notice: str = ""
    lost: bool = False
    """The stream is away."""
    error: str = ""


@dataclass
class _Orders:
    """What the thread is to do next; guarded by the session's condition."""

    settings: Settings
    seek: int | None = None
    one_frame: bool = False
    """Show one frame although paused."""
    stop: bool = False
    limits: Limits = field(default_factory=Limits)


class LiveSession:
    """Plays a source through a detector for as long as somebody watches.

    All work is done in one thread of its own. Whatever other threads ask for goes through `change` and `seek`, and
    takes effect before the next frame.
    """

    def __init__(
        self,
        cfg: CfgNode,
        model: nn.Module,
        source: VideoSource,
        classes: Sequence[str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.source = source
        self.broadcast: Broadcast[Update] = Broadcast(self._count_viewers)
        self.failure: BaseException | None = None
        """What ended the thread, if it was a defect."""
        self.on_failure: Callable[[], None] = lambda: None
        self._cfg, self._model, self._classes, self._clock = cfg, model, classes, clock
        self._control = build_runtime_control(cfg, model)
        self._automatic = self._control.controller
        self._latency: LatencyController | None = None
        self._beside = ExitStack()
        self._dense: VideoDetector | None = None
        has_automatic = bool(cfg.MODEL.EVENTFUL.CONTROLLER.NAME) or cfg.MODEL.EVENTFUL.POLICY != "top-r"
        limits = Limits(None, self._control.bounds, source.num_frames, not source.live, has_automatic)
        settings = Settings(cfg.MODEL.EVENTFUL.R, eventful=cfg.MODEL.EVENTFUL.ENABLED, automatic=has_automatic)
        self._changed = threading.Condition()
        self._orders = _Orders(settings, limits=limits)
        self._update = Update(settings, limits)
        self._costs: deque[Cost] = deque(maxlen=HISTORY)
        self._times: deque[float] = deque(maxlen=20)
        self._due = 0.0
        self._notice, self._notice_until = "", 0.0
        self._viewers = 0
        self._thread = threading.Thread(target=self._run, name="detector", daemon=True)
        if isinstance(source, StreamSource):
            source.on_notice = self._hear

    # Called by other threads.

    def start(self) -> None:
        """Begin; frames are shown once there is a viewer."""
        self.broadcast.publish(self._update)
        self._thread.start()

    def stop(self, patience: float = STOP_SECONDS) -> bool:
        """End the thread and wait for it, but not longer than `patience` seconds; returns whether it has ended."""
        with self._changed:
            self._orders.stop = True
            self._changed.notify()
        self._thread.join(patience)
        return not self._thread.is_alive()

    def change(self, asked: object) -> Settings:
        """Change settings as a viewer asks, and return them. Raises RequestError with the reason of a refusal."""
        with self._changed:
            orders = self._orders
            orders.settings = change_settings(orders.settings, asked, orders.limits)
            self._tell()
            self._changed.notify()
            return orders.settings

    def seek(self, asked: object) -> int:
        """Go to the frame that a viewer asks for, and return it. Raises RequestError with the reason of a refusal."""
        with self._changed:
            self._orders.seek = check_seek(asked, self._orders.limits)
            self._orders.one_frame = True
            self._changed.notify()
            return self._orders.seek

    def _count_viewers(self, count: int) -> None:
        with self._changed:
            self._viewers = count
            self._changed.notify()

    def _hear(self, notice: str) -> None:
        self._tell(notice=notice, lost=True)

    # The thread.

    def _run(self) -> None:
        try:
            with self._open_model() as detector, self._beside:
                position: int | None = 0
                while position is not None:
                    position = self._play(detector, position)
        except BaseException as error:  # reported by whoever runs the session; the thread itself has nobody to tell
            self.failure = error
            self.on_failure()

    def _open_model(self) -> VideoDetector:
        """What runs the model, as a context."""
        return VideoDetector(self._cfg, self._model, self._control)

    def _play(self, detector: VideoDetector, start: int) -> int | None:
        """Show frames from number `start` on; returns where to go on, None at the end of the session."""
        position = start
        with closing(self.source.frames(start)) as frames:
            while self._wait():
                with self._changed:
                    seek, self._orders.seek = self._orders.seek, None
                    if seek == position:  # the frame that comes next anyway
                        self._orders.one_frame = False
                if seek not in (None, position):
                    return seek
                try:
                    frame = next(frames, None)
                    if frame is not None:
                        self._show(detector, frame)
                    elif position == 0:
                        raise LiveError(f"{self.source.name}: has no frames")
                except Exception as error:
                    if not is_for_user(error):
                        raise
                    self._halt(describe_error(error))
                    return 0
                if frame is None:
                    self._end()
                    return 0
                position = frame.index + 1
        return None

    def _wait(self) -> bool:
        """Wait until it is time for a frame, or to go elsewhere; False at the end of the session."""
        orders = self._orders
        with self._changed:
            while not orders.stop:
                if orders.seek is not None:
                    return True
                runs = self._viewers and (orders.one_frame or not orders.settings.paused)
                early = self._due - self._clock()
                if runs and (early <= 0 or orders.one_frame):
                    orders.one_frame = False
                    return True
                self._changed.wait(early if runs else None)
        return False

    def _show(self, detector: VideoDetector, frame: SourceFrame) -> None:
        """Run the model on a frame and publish the result."""
        settings = self._apply_settings()
        began = self._clock()
        result = detector.detect(frame)
        dense = self._detect_densely(frame, settings)
        self._costs.append(_cost(self._next_serial(), result, dense))
        grid = result.token_grid
        self._publish(frame, began, self._picture(frame, result, dense), grid[0] * grid[1])

    def _apply_settings(self) -> Settings:
        """Let the model run the next frame as viewers want it."""
        with self._changed:
            settings = self._orders.settings
        self._model.enabled = settings.eventful
        self._control.controller = self._controller(settings)
        return settings

    def _next_serial(self) -> int:
        return self._costs[-1].serial + 1 if self._costs else 0

    def _publish(self, frame: SourceFrame, began: float, picture: Picture, tokens: int) -> None:
        """Show viewers a frame that was begun at a time, of a model with so many tokens."""
        self._times.append(began)
        self._due = began + (0.0 if self.source.live else frame.duration or 1 / self.source.fps)
        with self._changed:
            orders = self._orders
            orders.limits = replace(orders.limits, tokens=tokens)
            orders.settings = replace(orders.settings, budget=orders.limits.clamp(orders.settings.budget))
        if frame.notice:
            self._notice, self._notice_until = frame.notice, began + NOTICE_SECONDS
        notice = self._notice if began < self._notice_until else ""
        costs, rate = tuple(self._costs), self._rate()
        self._tell(picture=picture, costs=costs, frames_per_second=rate, notice=notice, lost=False, error="")

    def _controller(self, settings: Settings) -> Controller:
        """What chooses the tokens of the next frame."""
        if settings.automatic:
            return self._automatic
        if settings.target_ms is None:
            self._latency = None
            return Constant(TopR(settings.budget))
        if self._latency is None or self._latency.target != settings.target_ms:
            self._latency = LatencyController(settings.target_ms, settings.budget, self._control.bounds)
        return self._latency

    def _detect_densely(self, frame: SourceFrame, settings: Settings) -> FrameResult | None:
        """The dense model's result beside the eventful one, where it is asked for."""
        if not (settings.beside and settings.eventful):
            self._beside.close()
            self._dense = None
            return None
        if self._dense is None:
            self._dense = self._beside.enter_context(dense_detector(self._cfg, self._model))
        return self._dense.detect(frame)

    def _picture(self, frame: SourceFrame, result: FrameResult, dense: FrameResult | None) -> Picture:
        height, width = frame.image.shape[:2]
        share = None
        if result.budget != DENSE:
            share = updated_share(result.gates, list(result.gates), result.token_grid)
            share = np.round(255 * share).astype(np.uint8)
        return Picture(
            encode_picture(frame.image),
            frame.name,
            frame.index,
            frame.seconds,
            width,
            height,
            tuple(self._describe(result)),
            tuple(self._describe(dense)) if dense is not None else None,
            result.budget,
            share,
            result.token_area,
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
        return described

    def _rate(self) -> float:
        """Frames per second of late."""
        span = self._times[-1] - self._times[0]
        return (len(self._times) - 1) / span if span > 0 else 0.0

    def _halt(self, error: str) -> None:
        """Stop at an error of the input, and say it; playing on tries again from the start."""
        self._pause()
        self._tell(error=error)

    def _end(self) -> None:
        with self._changed:
            repeat = self._orders.settings.repeat
        if not repeat:
            self._pause()
            self._tell()

    def _pause(self) -> None:
        with self._changed:
            self._orders.settings = replace(self._orders.settings, paused=True)
            self._orders.one_frame = False

    def _tell(self, **changes: object) -> None:
        """Publish the last update with these changes and the current settings."""
        with self._changed:
            orders = self._orders
            self._update = replace(self._update, settings=orders.settings, limits=orders.limits, **changes)
            self.broadcast.publish(self._update)


def _cost(serial: int, result: FrameResult, dense: FrameResult | None) -> Cost:
    kind = DENSE if result.budget == DENSE else FLUSH if result.cost.flushed else EVENTFUL
    return Cost(serial, *_gflops_and_ms(result), kind, None if dense is None else _gflops_and_ms(dense))


def _gflops_and_ms(result: FrameResult) -> tuple[float, float]:
    return result.cost.total_gflops, 1000 * result.cost.total_seconds


def encode_picture(image: np.ndarray) -> bytes:
    """A JPEG, no wider than MAX_WIDTH."""
    if image.shape[1] > MAX_WIDTH:
        size = (MAX_WIDTH, max(1, round(image.shape[0] * MAX_WIDTH / image.shape[1])))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return encode_jpeg(image, JPEG_QUALITY)
