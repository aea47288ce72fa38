"""Pictures of frames in which the dense and the eventful detector differ, as data inside the page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from ..data.listed_frames import read_listed_frame
from ..draw.boxes import class_name
from ..errors import DataError, ReportError
from ..video import encode_jpeg
from .disagreement import STRONG, FrameDifference
from .markup import Markup, join, tag

WIDTH = 440
"""Pixels of a picture; enough for a sharp one on a screen, few enough for a page of many."""
ASPECT = 4 / 3
SMALLEST_SHARE = 0.35
"""A picture shows at least this share of the frame's height: the surroundings tell where it is."""
JPEG_QUALITY = 82
CHARACTER = 7.2
"""Width in pixels of a character of a label, about."""


@dataclass(frozen=True)
class Frames:
    """The frames of the data set by image_id, or the reason why there are none."""

    by_id: dict[int, dict] = field(default_factory=dict)
    classes: Sequence[str] = ()
    absent: str = ""


@dataclass(frozen=True)
class View:
    """A part of a frame in its pixels, and the factor by which it is enlarged."""

    x: int
    y: int
    width: int
    height: int
    scale: float


def choose_view(frame_width: int, frame_height: int, boxes: np.ndarray) -> View:
    """The part of a frame around boxes (N, 4) with as much again around them, of a fixed aspect where it fits."""
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    centre, sides = (low + high) / 2, 2 * (high - low)
    height = max(sides[1], sides[0] / ASPECT, SMALLEST_SHARE * frame_height)
    width = min(frame_width, round(ASPECT * height))
    height = min(frame_height, round(height))
    x, y = (
        int(np.clip(round(middle - side / 2), 0, whole - side))
        for middle, side, whole in zip(centre, (width, height), (frame_width, frame_height))
    )
    return View(x, y, int(width), int(height), WIDTH / width)


def draw_difference(frames: Frames, difference: FrameDifference) -> Markup:
    """A frame with what both found (thin), what the dense run alone found, and what the eventful run alone found.

    Raises ReportError, with the reason, where the frame cannot be read.
    """
    frame = frames.by_id.get(difference.image_id)
    if frame is None:
        raise ReportError(frames.absent or f"the data set has no image {difference.image_id}")
    try:
        image = read_listed_frame(frame)
    except DataError as error:
        raise ReportError(str(error)) from error
    alone = [difference.dense.boxes[difference.only_dense], difference.eventful.boxes[difference.only_eventful]]
    view = choose_view(image.shape[1], image.shape[0], np.concatenate(alone))
    size = {"width": WIDTH, "height": round(view.height * view.scale)}
    return tag(
        "svg",
        {"class": "picture", "viewBox": f"0 0 {size['width']} {size['height']}", "role": "img"},
        tag("image", {"href": _data_uri(image, view), **size}),
        *_boxes(difference, view, frames.classes),
    )


def _data_uri(image: np.ndarray, view: View) -> str:
    part = image[view.y : view.y + view.height, view.x : view.x + view.width]
    size = (WIDTH, round(view.height * view.scale))
    resized = cv2.resize(part, size, interpolation=cv2.INTER_AREA if view.scale < 1 else cv2.INTER_CUBIC)
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(resized, JPEG_QUALITY)).decode("ascii")


def _boxes(difference: FrameDifference, view: View, classes: Sequence[str]) -> list[Markup]:
    shared = (difference.dense.scores >= STRONG) & ~difference.only_dense
    drawn = []
    for kind, table, mask in (
        ("both", difference.dense, shared),
        ("dense", difference.dense, difference.only_dense),
        ("eventful", difference.eventful, difference.only_eventful),
    ):
        for row in np.flatnonzero(mask):
            name = class_name(classes, int(table.classes[row]))
            drawn.append(_box(kind, table.boxes[row], f"{name} {table.scores[row]:.2f}", view))
    return drawn


def _box(kind: str, box: np.ndarray, text: str, view: View) -> Markup:
    x0, y0, x1, y1 = (float(v) * view.scale for v in box - np.array([view.x, view.y, view.x, view.y], box.dtype))
    rectangle = {"x": f"{x0:.1f}", "y": f"{y0:.1f}", "width": f"{x1 - x0:.1f}", "height": f"{y1 - y0:.1f}"}
    label = None
    if kind != "both":
        # Above the boxes of one, below those of the other, and inside the picture.
        y = max(13.0, y0 - 5) if kind == "dense" else min(y1 + 14, view.height * view.scale - 5)
        x = max(4.0, min(x0, WIDTH - 4 - CHARACTER * len(text)))
        label = tag("text", {"class": "name", "x": f"{x:.1f}", "y": f"{y:.1f}"}, text)
    return tag("g", {"class": f"box {kind}"}, tag("rect", rectangle, tag("title", None, text)), join(label))
