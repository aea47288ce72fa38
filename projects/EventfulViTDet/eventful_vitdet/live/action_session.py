"""The live page of a model that recognises actions: a strip of text below the picture, and a result for every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from detectron2.config import CfgNode

from ..actions.video_recogniser import ActionResult, VideoRecogniser
from ..budgets import DENSE
from ..draw.action_strip import ActionPainter
from ..draw.boxes import class_color
from ..modeling.video_classifier import VideoClassifier
from ..structures import SourceFrame
from ..video import VideoSource
from .session import LiveSession
from .settings import RequestError, Settings
from .updates import EVENTFUL, FLUSH, Cost, Picture, ShownImage


class ActionSession(LiveSession):
    """Plays a source through a VideoClassifier; costs are those of steps."""

    def __init__(
        self, cfg: CfgNode, model: VideoClassifier, source: VideoSource, names: Mapping[str, Sequence[str]], **options
    ) -> None:
        """
        Args:
            names: of each head's classes, see `action_names`.
            options: of LiveSession.
        """
        self._recogniser = VideoRecogniser(cfg, model, names)
        super().__init__(cfg, model, self._recogniser.control, [source], **options)
        self._painter = ActionPainter(list(names))

    def change(self, asked: object) -> Settings:
        """As of any session; actions are not shown twice."""
        if isinstance(asked, Mapping) and asked.get("beside"):
            raise RequestError("a model of actions is shown by itself: choose eventful or dense")
        return super().change(asked)

    def _open_model(self) -> VideoRecogniser:
        return self._recogniser

    def _show(self, recogniser: VideoRecogniser, frames: Mapping[int, SourceFrame]) -> None:
        ((number, frame),) = frames.items()
        camera = self.cameras[number]
        self._apply_settings()
        began = self._clock()
        result = recogniser.recognise(frame)
        if result is not None:
            kind = DENSE if result.budget == DENSE else FLUSH if result.cost.flushed else EVENTFUL
            camera.add_cost(Cost(camera.next_serial, result.cost.total_gflops, 1000 * result.cost.total_seconds, kind))
        picture = self._action_picture(frame, result)
        self._publish(frames, began, {number: picture}, {number: recogniser.tokens})

    def _action_picture(self, frame: SourceFrame, result: ActionResult | None) -> Picture:
        latest = self._recogniser.latest
        image = self._painter.paint(frame, result, latest)
        height, width = image.shape[:2]
        budget = "" if latest is None else latest.budget
        actions = tuple(_describe_head(head, latest) for head in self._recogniser.names)
        return Picture(
            ShownImage(image), frame.name, frame.index, frame.seconds, width, height, (), None, budget, None,
            (height, width), actions=actions,
        )  # fmt: skip


def _describe_head(head: str, result: ActionResult | None) -> dict:
    """A head for the page: its likeliest classes or, before there are any, how many steps were seen."""
    if result is None or result.best is None:
        seen = "nothing yet" if result is None else f"{result.window[0]} of {result.window[1]} steps seen"
        return {"head": head, "seen": seen, "classes": []}
    blue, green, red = class_color(0)
    classes = [
        {"class": name, "score": round(score, 3), "color": [red, green, blue]} for name, score in result.best[head]
    ]
    return {"head": head, "seen": "", "classes": classes}
