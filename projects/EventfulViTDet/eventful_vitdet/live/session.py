"""A model at work: one thread that takes the frames of cameras, runs the model and publishes what came of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial

from detectron2.config import CfgNode
from eventful_vit import TopR
from torch import nn

from ..control import RuntimeControl
from ..controllers import Constant, Controller, LatencyController
from ..errors import LiveError, describe_error, is_for_user
from ..structures import SourceFrame
from ..video import StreamSource, VideoSource
from .broadcast import Broadcast
from .camera import SILENT_SECONDS, Camera, PassEnd
from .settings import Limits, Look, Settings, change_settings, check_camera, check_seek
from .updates import GridUpdate, Picture, Update

STOP_SECONDS = 0.75
"""A thread that is in a frame of a large model, or waits for a lost stream, may take longer to end."""
TOGETHER_SECONDS = 0.02
"""Frames of several cameras that are due within this time are computed as one batch."""
POLL_SECONDS = 1.0
"""How often cameras are looked after that deliver nothing."""


@dataclass
class _Orders:
    """What the thread is to do next; guarded by the session's condition."""

    settings: Settings
    stop: bool = False
    limits: Limits = field(default_factory=Limits)


class LiveSession:
    """Plays sources through a model for as long as somebody watches; a base class.

    One thread runs the model. Whatever other threads ask for goes through `change` and `seek`, and takes effect before
    the next frame.
    """

    def __init__(
        self,
        cfg: CfgNode,
        model: nn.Module,
        control: RuntimeControl,
        sources: Sequence[VideoSource],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.broadcast: Broadcast[Update | GridUpdate] = Broadcast(self._count_viewers)
        self.failure: BaseException | None = None
        """What ended the thread, if it was a defect."""
        self.on_failure: Callable[[], None] = lambda: None
        self._cfg, self._model, self._control, self._clock = cfg, model, control, clock
        self._automatic = control.controller
        self._latency: LatencyController | None = None
        has_automatic = bool(cfg.MODEL.EVENTFUL.CONTROLLER.NAME) or cfg.MODEL.EVENTFUL.POLICY != "top-r"
        limits = Limits(None, control.bounds, has_automatic=has_automatic)
        settings = Settings(cfg.MODEL.EVENTFUL.R, eventful=cfg.MODEL.EVENTFUL.ENABLED, automatic=has_automatic)
        self._changed = threading.Condition()
        self._orders = _Orders(settings, limits=limits)
        self.cameras = [Camera(source, Update(settings, limits), self._wake, clock) for source in sources]
        self._viewers = 0
        self._thread = threading.Thread(target=self._run, name="detector", daemon=True)
        for camera in self.cameras:
            if isinstance(camera.source, StreamSource):
                camera.source.on_notice = partial(self._lose, camera)
                if camera.source.is_away:
                    camera.lose(f"{camera.source.name}: no signal, trying again")

    # Called by other threads.

    def first_look(self) -> Look:
        """What a viewer sees that has not said yet what it wants to see."""
        return Look(0)

    def start(self) -> None:
        """Begin; frames are shown once there is a viewer."""
        self._tell()
        self._thread.start()

    def stop(self, patience: float = STOP_SECONDS) -> bool:
        """End all threads and wait for them, at most `patience` seconds; returns whether they have ended."""
        deadline = time.monotonic() + patience
        with self._changed:
            self._orders.stop = True
            self._changed.notify()
        for camera in self.cameras:
            camera.reader.end()
        self._thread.join(patience)
        readers_ended = [camera.reader.has_ended(max(0.0, deadline - time.monotonic())) for camera in self.cameras]
        return not self._thread.is_alive() and all(readers_ended)

    def change(self, asked: object) -> Settings:
        """Change settings as a viewer asks, and return them. Raises RequestError with the reason of a refusal."""
        with self._changed:
            orders, before = self._orders, self._orders.settings
            orders.settings = after = change_settings(before, asked, orders.limits)
            plays, repeats = before.paused and not after.paused, after.repeat and not before.repeat
            for camera in self.cameras:
                if camera.halted and (plays or (repeats and not after.paused and not camera.update.error)):
                    camera.go_to(0)
            self._tell()
            self._changed.notify()
            return orders.settings

    def seek(self, asked: object) -> int:
        """Go to the frame that a viewer asks for, and return it. Raises RequestError with the reason of a refusal."""
        with self._changed:
            camera = self.cameras[check_camera(asked, len(self.cameras))]
            index = check_seek(asked, camera.limits(self._orders.limits))
            camera.seek(index)
            self._changed.notify()
            return index

    def _count_viewers(self, count: int) -> None:
        with self._changed:
            self._viewers = count
            self._changed.notify()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify()

    def _lose(self, camera: Camera, notice: str) -> None:
        with self._changed:
            camera.lose(notice)
            self._tell()

    # The thread.

    def _open_model(self) -> AbstractContextManager:
        """What runs the model, as a context."""
        raise NotImplementedError

    def _show(self, model: object, frames: Mapping[int, SourceFrame]) -> None:
        """Run the model on frames, by the numbers of their cameras, and publish the results."""
        raise NotImplementedError

    def _run(self) -> None:
        try:
            with self._open_model() as model:
                while frames := self._next_frames():
                    self._show_or_halt(model, frames)
        except BaseException as error:  # reported by whoever runs the session; the thread itself has nobody to tell
            self.failure = error
            self.on_failure()

    def _next_frames(self) -> dict[int, SourceFrame]:
        """Wait until frames are to be shown, and take them; none at the end of the session."""
        with self._changed:
            while not self._orders.stop:
                if self._viewers:
                    self._look_after_cameras()
                if frames := self._take_due():
                    return frames
                self._changed.wait(self._seconds_to_wait())
        return {}

    def _look_after_cameras(self) -> None:
        """Let all be read; deal with the ends of passes, and with silence."""
        for camera in self.cameras:
            camera.begin()
            end = camera.reader.peek()
            if isinstance(end, PassEnd):
                camera.reader.take()
                self._end_pass(camera, end.error)
            elif len(self.cameras) > 1 and not camera.halted and camera.is_silent() and not camera.update.lost:
                self._lose(camera, f"{camera.source.name}: no frame for {SILENT_SECONDS:g} s")

    def _end_pass(self, camera: Camera, error: Exception | None) -> None:
        if error is None and camera.is_at_start:
            error = LiveError(f"{camera.source.name}: has no frames")
        if error is not None:
            if not is_for_user(error):
                raise error
            if camera.source.live and len(self.cameras) > 1:  # while others play, nobody would press play for this one
                camera.go_to(0)
                self._lose(camera, describe_error(error))
            else:
                self._halt(camera, describe_error(error))
        elif self._orders.settings.repeat:
            camera.go_to(0)
        else:
            self._halt(camera)

    def _take_due(self) -> dict[int, SourceFrame]:
        now, plays = self._clock(), not self._orders.settings.paused
        if not self._viewers:
            return {}
        ready = {number: camera for number, camera in enumerate(self.cameras) if camera.is_ready}
        if not any(camera.one_frame or (plays and camera.due <= now) for camera in ready.values()):
            return {}
        limit = now + TOGETHER_SECONDS
        return {
            number: camera.take(now)
            for number, camera in ready.items()
            if camera.one_frame or (plays and camera.due <= limit)
        }

    def _seconds_to_wait(self) -> float | None:
        """Until there is something to do; None if somebody has to ask for it first."""
        now, plays = self._clock(), not self._orders.settings.paused
        active = [camera for camera in self.cameras if not camera.halted and (plays or camera.one_frame)]
        if not active or not self._viewers:
            return None
        return min(max(0.0, camera.due - now) if camera.is_ready else POLL_SECONDS for camera in active)

    def _show_or_halt(self, model: object, frames: Mapping[int, SourceFrame]) -> None:
        """Show frames. A camera whose frame the model cannot take is halted; those of the others are shown."""
        try:
            self._show(model, frames)
        except Exception as error:
            if not is_for_user(error):
                raise
            if len(frames) > 1:
                for number, frame in frames.items():
                    self._show_or_halt(model, {number: frame})
                return
            (number,) = frames
            self._halt(self.cameras[number], describe_error(error))

    def _apply_settings(self) -> Settings:
        """Let the model run the next frame as viewers want it."""
        with self._changed:
            settings = self._orders.settings
        self._model.enabled = settings.eventful
        self._control.controller = self._controller(settings)
        return settings

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

    def _publish(
        self,
        frames: Mapping[int, SourceFrame],
        began: float,
        pictures: Mapping[int, Picture],
        tokens: Mapping[int, int],
    ) -> None:
        """Show viewers frames that were begun at a time, with the number of each one's tokens."""
        with self._changed:
            for number, frame in frames.items():
                self.cameras[number].show(frame, began, pictures[number], tokens[number])
            orders = self._orders
            most = max(camera.tokens for camera in self.cameras if camera.tokens is not None)
            orders.limits = replace(orders.limits, tokens=most)
            orders.settings = replace(orders.settings, budget=orders.limits.clamp(orders.settings.budget))
            self._tell()

    def _halt(self, camera: Camera, error: str = "") -> None:
        """Stop at the end of an input, or at an error, and say it; playing on tries again from the start."""
        with self._changed:
            camera.halt()
            camera.update = replace(camera.update, error=error, frames_per_second=0.0)
            if all(other.halted for other in self.cameras):
                self._orders.settings = replace(self._orders.settings, paused=True)
            self._tell()

    def _tell(self) -> None:
        """Publish what viewers are to know now."""
        with self._changed:
            orders = self._orders
            for camera in self.cameras:
                limits = camera.limits(orders.limits)
                camera.update = replace(camera.update, settings=orders.settings, limits=limits)
            self.broadcast.publish(self._news())

    def _news(self) -> Update | GridUpdate:
        return self.cameras[0].update
