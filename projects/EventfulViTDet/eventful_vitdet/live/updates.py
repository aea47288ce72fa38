"""What a session tells its viewers."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import cv2
import numpy as np

from ..video import encode_jpeg
from .settings import LARGEST_WIDTH, Limits, Settings

HISTORY = 300
"""Frames that the charts show."""
WIDTHS = (160, 240, 320, 480, 640, 960, LARGEST_WIDTH)
"""Pixels in which pictures are sent, wider frames reduced: the smallest of these that a viewer's picture fits in. The
model sees frames whole."""
JPEG_QUALITY = 85
EVENTFUL, FLUSH = "eventful", "flush"
"""Kinds of frames beside budgets.DENSE."""


@dataclass(frozen=True)
class Cost:
    """What a frame cost, for the charts."""

    serial: int
    """Counts the frames of this camera."""
    gflops: float
    milliseconds: float
    kind: str
    """EVENTFUL, or computed in full: as a FLUSH, or by the DENSE model."""
    dense: tuple[float, float] | None = None
    """GFlops and milliseconds of the dense model on the same frame, where it ran beside the eventful one."""


class ShownImage:
    """A frame's image (H, W, 3) for viewers: a JPEG in each width that somebody looks at, made once."""

    def __init__(self, image: np.ndarray) -> None:
        self._image = image
        self._jpegs: dict[int, bytes] = {}
        self._lock = threading.Lock()

    def jpeg(self, width: int = LARGEST_WIDTH) -> bytes:
        """The image, not enlarged, in the smallest of WIDTHS that is not below a width; may be called by any thread."""
        width = next(size for size in WIDTHS if size >= width)
        with self._lock:
            if width not in self._jpegs:
                self._jpegs[width] = encode_jpeg(_reduce(self._image, width), JPEG_QUALITY)
            return self._jpegs[width]


@dataclass(frozen=True)
class Picture:
    """A frame and what was found in it."""

    image: ShownImage
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
    updated: float | None = None
    """The part of the tokens that gates updated, the mean over all gates; None where that is not known."""
    actions: tuple[dict, ...] | None = None
    """What is seen, by head; None where the model is a detector."""


@dataclass(frozen=True)
class Update:
    """All that a viewer of one camera has to know, at one moment."""

    settings: Settings
    limits: Limits
    picture: Picture | None = None
    costs: tuple[Cost, ...] = ()
    frames_per_second: float = 0.0
    notice: str = ""
    lost: bool = False
    """The stream is away."""
    error: str = ""


@dataclass(frozen=True)
class GridUpdate:
    """The same of several cameras at once."""

    settings: Settings
    limits: Limits
    names: tuple[str, ...]
    cameras: tuple[Update, ...]
    full_gflops: tuple[float | None, ...]
    """Of each camera's last frame that was computed in full; None before one was."""
    frames_per_second: float
    """Of all cameras together."""


def _reduce(image: np.ndarray, width: int) -> np.ndarray:
    if image.shape[1] <= width:
        return image
    size = (width, max(1, round(image.shape[0] * width / image.shape[1])))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
