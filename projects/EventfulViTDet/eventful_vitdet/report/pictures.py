"""Pictures of frames with the boxes of the dense and the eventful detector: their pixels, and where everything is."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from ..data.listed_frames import read_listed_frame
from ..draw.boxes import class_name
from ..draw.label_placement import Box, corners_around, place_label
from ..errors import DataError, ReportError
from ..video import encode_jpeg
from .disagreement import STRONG, FrameDifference

WIDTH = 440
"""Pixels of a picture; enough for a sharp one on a screen, few enough for a page of many."""
ASPECT = 4 / 3
SMALLEST_SHARE = 0.35
"""A picture shows at least this share of the frame's height: the surroundings tell where it is."""
JPEG_QUALITY = 82
CHARACTER, LINE = 9.2, 20.0
"""Width of a character and height of a label in pixels, about."""
TALLEST = 1.25
"""Height of a picture over its width, at most: a portrait frame leaves room at its sides."""


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


@dataclass(frozen=True)
class PictureBox:
    """A detection: in both runs ("both"), in one of them only ("dense", "eventful"). All in pixels of the picture."""

    kind: str
    x: float
    y: float
    width: float
    height: float
    text: str
    label: tuple[float, float] | None
    """The left end of its label's base line; None where it has no label."""


@dataclass(frozen=True)
class Picture:
    """A part of a frame with boxes."""

    width: int
    height: int
    source: str
    """A data URI."""
    boxes: tuple[PictureBox, ...]


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


def whole_view(frame_width: int, frame_height: int) -> View:
    """All of a frame."""
    return View(0, 0, frame_width, frame_height, min(WIDTH / frame_width, TALLEST * WIDTH / frame_height))


def draw_difference(frames: Frames, difference: FrameDifference, *, whole: bool = False) -> Picture:
    """A frame with what both found (thin), what the dense run alone found, and what the eventful run alone found.

    `whole` shows all of the frame, with a label at every box; otherwise it is the part around the differences, and
    these have labels. Raises ReportError, with the reason, where the frame cannot be read.
    """
    frame = frames.by_id.get(difference.image_id)
    if frame is None:
        raise ReportError(frames.absent or f"the data set has no image {difference.image_id}")
    try:
        image = read_listed_frame(frame)
    except DataError as error:
        raise ReportError(str(error)) from error
    height, width = image.shape[:2]
    if whole:
        view = whole_view(width, height)
    else:
        alone = [difference.dense.boxes[difference.only_dense], difference.eventful.boxes[difference.only_eventful]]
        view = choose_view(width, height, np.concatenate(alone))
    size = (round(view.width * view.scale), round(view.height * view.scale))
    boxes = tuple(_boxes(difference, view, frames.classes, size, label_both=whole))
    return Picture(*size, _data_uri(image, view, size), boxes)


def _data_uri(image: np.ndarray, view: View, size: tuple[int, int]) -> str:
    part = image[view.y : view.y + view.height, view.x : view.x + view.width]
    resized = cv2.resize(part, size, interpolation=cv2.INTER_AREA if view.scale < 1 else cv2.INTER_CUBIC)
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(resized, JPEG_QUALITY)).decode("ascii")


def _boxes(
    difference: FrameDifference, view: View, classes: Sequence[str], size: tuple[int, int], *, label_both: bool
) -> Iterator[PictureBox]:
    shared = (difference.dense.scores >= STRONG) & ~difference.only_dense
    found: list[tuple[str, Box, str]] = []
    for kind, table, mask in (
        ("both", difference.dense, shared),
        ("dense", difference.dense, difference.only_dense),
        ("eventful", difference.eventful, difference.only_eventful),
    ):
        offset = np.array([view.x, view.y, view.x, view.y], table.boxes.dtype)
        for row in np.flatnonzero(mask):
            box = tuple(float(value) * view.scale for value in table.boxes[row] - offset)
            found.append((kind, box, f"{class_name(classes, int(table.classes[row]))} {table.scores[row]:.2f}"))
    labels: list[Box] = []
    for kind, box, text in found:
        label = None
        if kind != "both" or label_both:
            label = _place(text, box, size, labels, [other for _, other, _ in found])
        yield PictureBox(kind, box[0], box[1], box[2] - box[0], box[3] - box[1], text, label)


def _place(text: str, box: Box, size: tuple[int, int], labels: list[Box], boxes: list[Box]) -> tuple[float, float]:
    """The left end of the base line of a label at a box."""
    bounds = (3.0, 2.0, size[0] - 3.0, size[1] - 2.0)
    extent = (CHARACTER * len(text), LINE)
    corners = corners_around(box, extent, bounds)
    left, top = corners[place_label(extent, corners, bounds, labels, boxes)]
    return left, top + LINE - 5
