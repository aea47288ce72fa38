"""What viewers can change, and the check of what they ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from ..controllers import Bounds

LARGEST_WIDTH = 1280
"""Pixels that a picture is sent in."""
MAX_SHOWN = 40
"""Characters of a refused value that are repeated in the reason."""


class RequestError(Exception):
    """A viewer asked for something that is refused; the message is the reason."""


@dataclass(frozen=True)
class Settings:
    """The state of the page's controls, the same for all viewers."""

    budget: int
    """r: tokens per gate and frame, where `automatic` does not decide."""
    target_ms: float | None = None
    """Milliseconds that a frame should take; the budget is then chosen for them. None: the budget is what it is."""
    eventful: bool = True
    """False runs the dense model, on the same weights."""
    beside: bool = False
    """Run the dense model too, to be seen beside the eventful one."""
    automatic: bool = False
    """The configuration's controller chooses the budget, or its policy the tokens."""
    paused: bool = False
    repeat: bool = True
    """Start again at the end of a file."""


@dataclass(frozen=True)
class Limits:
    """What can be asked for at the moment."""

    tokens: int | None = None
    """Tokens of a frame; None before the first one."""
    bounds: Bounds = Bounds()
    """The configuration's smallest and largest budget."""
    num_frames: int | None = None
    seekable: bool = False
    has_automatic: bool = False
    """The configuration has a controller, or another policy than top-r."""

    @property
    def smallest_budget(self) -> int:
        """Of what viewers may ask for."""
        return self.clamp(0)

    @property
    def largest_budget(self) -> int:
        """Of what viewers may ask for."""
        return self.clamp(self.tokens or 0)

    def clamp(self, budget: int) -> int:
        """The nearest budget within the bounds that frames have the tokens for."""
        return min(int(self.bounds.clamp(budget)), self.tokens or 0)


@dataclass(frozen=True)
class Look:
    """What a viewer looks at: a camera, or all of them."""

    camera: int | None
    """Number of the camera; None: a tile for each."""
    width: int = LARGEST_WIDTH
    """Pixels of the picture, or of each tile's."""


LARGEST_TARGET_MS = 60_000
SWITCHES = tuple(field.name for field in fields(Settings) if field.name not in ("budget", "target_ms"))


def change_settings(settings: Settings, asked: object, limits: Limits) -> Settings:
    """The settings after a request such as {"budget": 64}. Raises RequestError with the reason of a refusal."""
    _check_object(asked, ("budget", "target_ms", *SWITCHES))
    for name in SWITCHES:
        if name in asked and not isinstance(asked[name], bool):
            raise RequestError(f"{name} is true or false, found {_show(asked[name])}")
    if asked.get("automatic") and not limits.has_automatic:
        raise RequestError("nothing but top-r was configured (MODEL.EVENTFUL.CONTROLLER.NAME, MODEL.EVENTFUL.POLICY)")
    if "budget" in asked:
        if limits.tokens is None:
            raise RequestError("the budget can be set once the first frame has been seen")
        least, most = limits.smallest_budget, limits.largest_budget
        bounded = (least, most) != (0, limits.tokens)
        meaning = "MODEL.EVENTFUL.CONTROLLER.R_MIN and R_MAX" if bounded else "the tokens of a frame"
        _check_number("budget", asked["budget"], least, most, meaning)
        asked = {"automatic": False, "target_ms": None, **asked}
    if asked.get("target_ms") is not None:
        asked = {"automatic": False, **asked, "target_ms": _check_target(asked["target_ms"])}
    if asked.get("automatic"):
        asked = {**asked, "target_ms": None}
    return replace(settings, **asked)


def check_seek(asked: object, limits: Limits) -> int:
    """The frame number in a request such as {"frame": 120}. Raises RequestError with the reason of a refusal."""
    _check_object(asked, ("frame", "camera"))
    if not limits.seekable:
        raise RequestError("this input has no positions to go to: it is a stream or a camera")
    if "frame" not in asked:
        raise RequestError('seeking needs a frame, as in {"frame": 120}')
    last = None if limits.num_frames is None else max(0, limits.num_frames - 1)
    return _check_number("frame", asked["frame"], 0, last, "the last frame")


def check_camera(asked: object, cameras: int) -> int:
    """The number of the camera in a request such as {"frame": 120, "camera": 2}; of one camera it may be left out.

    Raises RequestError with the reason of a refusal.
    """
    _check_object(asked, ("frame", "camera"))
    if "camera" not in asked and cameras > 1:
        raise RequestError('there are several cameras: name one, as in {"frame": 120, "camera": 0}')
    return _check_number("camera", asked.get("camera", 0), 0, cameras - 1, "the last camera")


def check_look(asked: object, cameras: int) -> Look:
    """What a viewer wants to see: {"camera": 2}, or {"tiles": 320} with the width of each in pixels.

    Raises RequestError with the reason of a refusal.
    """
    _check_object(asked, ("camera", "tiles"))
    if len(asked) != 1:
        raise RequestError('one thing can be looked at: {"camera": 0} or {"tiles": 320}')
    if "camera" in asked:
        return Look(_check_number("camera", asked["camera"], 0, cameras - 1, "the last camera"))
    if cameras == 1:
        raise RequestError("there is one camera, and no tiles")
    return Look(None, _check_number("tiles", asked["tiles"], 1, LARGEST_WIDTH, "the widest picture"))


def _check_object(asked: object, known: tuple[str, ...]) -> None:
    if not isinstance(asked, Mapping):
        raise RequestError(f"expected a JSON object, found {_show(asked)}")
    for name in asked:
        if name not in known:
            raise RequestError(f"{_show(name)} is unknown; known are {', '.join(known)}")


def _check_target(value: object) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 1 <= value <= LARGEST_TARGET_MS:  # nor NaN
        raise RequestError(f"target_ms is a number from 1 to {LARGEST_TARGET_MS}, or null, found {_show(value)}")
    return float(value)


def _check_number(name: str, value: object, bottom: int, top: int | None, meaning: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise RequestError(f"{name} is a whole number, found {_show(value)}")
    if value < bottom or (top is not None and value > top):
        end = "" if top is None else f" to {top} ({meaning})"
        raise RequestError(f"{name} is a number from {bottom}{end}, found {_show(value)}")
    return value


def _show(value: object) -> str:
    text = f"a number of {value.bit_length()} bits" if isinstance(value, int) and abs(value) > 10**18 else repr(value)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."
