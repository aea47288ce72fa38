"""Objects of training frames carried to other frames, so that places do not tell which object is in them.

In videos of few places, each with one kind of object, a detector learns the place in the place of the object. Here an
object comes with what differs from its background: what is around it is even, as a sky is, and stays where it was. It
is turned, made paler or stronger, sometimes light for dark, so that its shape is what tells it from others.
"""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from detectron2.structures import BoxMode

from ..turned_layers import turn_layer

TRIES = 2
"""Objects that may be carried to an image, each with the set probability."""
SCALES = (0.6, 1.6)
"""Range of the factor of an object's size."""
TURN = 30.0
"""Largest angle, in degrees, by which an object is turned."""
STRENGTHS = (0.5, 1.3)
"""Range of the factor of its differences from its background."""
INVERTED = 0.2
"""How often what was darker than the background becomes lighter, and the reverse."""
LARGEST_SHARE = 0.6
"""Of the image's sides, that an object and its surroundings may take."""
MARGIN = 0.15
"""Of the longer side of a box: surroundings that are looked at and blended in."""
SMALLEST_SIDE = 6
"""Pixels of an object with its surroundings."""
MOST_UNEVEN = 18.0
"""Standard deviation of the grey levels around an object, above which its background would come along."""
NOISE = (6.0, 16.0)
"""Distances from the colour of the surroundings below which nothing and from which on all of a pixel is taken."""
SOFT_EDGE = 0.12
"""Share of the sides in which a carried patch fades out."""
ERASING = 0.6
"""How often an image's only own object is erased where another one was carried to it."""
LARGEST_ERASED = 160
"""Side of a square, in pixels, as large as the largest object that is erased."""
KEPT_PATCHES = 4096
"""Objects that a process holds in memory, so that their frames are decoded once."""
LARGEST_KEPT = 32_768
"""Bytes of an object that is held, so 128 MiB in all at most."""

Box = tuple[float, float, float, float]
"""x, y, width, height in pixels."""


@dataclass(frozen=True)
class _Donors:
    """The objects of a class, by video."""

    videos: list[list[tuple[dict, dict]]]
    """Each the frames and annotations of its objects. Plain lists, for other processes."""
    upper: list[float]
    """Sums of the videos' weights up to each."""

    def draw(self) -> tuple[dict, dict]:
        place = np.random.uniform() * self.upper[-1]
        return _draw(self.videos[bisect.bisect_right(self.upper, place, hi=len(self.videos) - 1)])


@dataclass(frozen=True)
class Cutout:
    """An object with its surroundings."""

    patch: np.ndarray
    """(h, w, 3), uint8."""
    box: Box
    """The object's, within the patch."""


class CopyPaste:
    """Gives training images further objects, at the size that they have in frames as large as their own."""

    def __init__(
        self,
        sets: Sequence[Sequence[dict]],
        read: Callable[[dict], np.ndarray],
        probability: float,
        ratios: Sequence[float] = (),
    ) -> None:
        """
        Args:
            sets: the frame dicts of each data set.
            read: reads a frame, (H, W, 3) in BGR.
            probability: of each of TRIES objects.
            ratios: of the sets, as they are mixed; () for 1 each. Of a class that several sets have, one gives objects
                in proportion to its ratio and to the share of its videos that show the class.
        """
        self._read = read
        self._probability = probability
        self._kept: dict[tuple, Cutout] = {}
        classes: dict = defaultdict(lambda: defaultdict(list))
        for number, frames in enumerate(sets):
            for frame in frames:
                for annotation in frame["annotations"]:
                    if not annotation.get("iscrowd", 0):
                        classes[annotation["category_id"]][number, frame["video_id"]].append((frame, annotation))
        weights = [
            ratio / max(1, len({frame["video_id"] for frame in frames}))
            for ratio, frames in zip(ratios or (1,) * len(sets), sets)
        ]
        self._donors = [
            _Donors(list(videos.values()), np.cumsum([weights[number] for number, _ in videos]).tolist())
            for videos in classes.values()
        ]

    def __call__(self, frame: dict, image: np.ndarray) -> tuple[np.ndarray, list[dict]]:
        """A frame's image (H, W, 3) and annotations, with objects carried to it; what is handed in stays as it is."""
        annotations = list(frame["annotations"])
        for _ in range(TRIES):
            if self._donors and np.random.uniform() < self._probability:
                carried = self._carry(image, [_box(annotation) for annotation in annotations])
                if carried is not None:
                    image = carried[0]
                    annotations.append(carried[1])
        if len(annotations) > len(frame["annotations"]) == 1 and np.random.uniform() < ERASING:
            erased = erase(image, _box(annotations[0]))
            if erased is not None:
                return erased, annotations[1:]
        return image, annotations

    def _carry(self, image: np.ndarray, taken: Sequence[Box]) -> tuple[np.ndarray, dict] | None:
        """The image with an object more, and its annotation; None where the one that was drawn does not fit."""
        donor, annotation = _draw(self._donors).draw()
        cutout = self._cutout(donor, annotation)
        if min(cutout.patch.shape[:2]) < SMALLEST_SIDE:
            return None
        separated = separate(cutout)
        if separated is None:
            return None
        usual = math.sqrt(image.shape[0] * image.shape[1] / (donor["height"] * donor["width"]))
        layer, box = separated.moved(
            _draw_scale(cutout.patch.shape, image.shape, usual), np.random.uniform(-TURN, TURN)
        )
        height, width = layer.shape[:2]
        if height >= image.shape[0] or width >= image.shape[1]:
            return None
        x, y = np.random.randint(image.shape[1] - width), np.random.randint(image.shape[0] - height)
        placed = (box[0] + x, box[1] + y, *box[2:])
        if any(_overlap(placed, other) for other in taken):
            return None
        plain = {"bbox": list(placed), "bbox_mode": BoxMode.XYWH_ABS, "category_id": annotation["category_id"]}
        return blend(image, layer, separated.background, x, y), {**plain, "iscrowd": 0}

    def _cutout(self, donor: dict, annotation: dict) -> Cutout:
        key = (donor["file_name"], donor["frame_id"], *annotation["bbox"])
        if key not in self._kept:
            cutout = cut_out(self._read(donor), _box(annotation))
            if len(self._kept) >= KEPT_PATCHES or cutout.patch.nbytes > LARGEST_KEPT:
                return cutout
            self._kept[key] = cutout
        return self._kept[key]


def cut_out(image: np.ndarray, box: Box) -> Cutout:
    """An object with its surroundings."""
    x0, y0, x1, y1 = _surroundings(image, box)
    return Cutout(image[y0:y1, x0:x1].copy(), (box[0] - x0, box[1] - y0, box[2], box[3]))


@dataclass(frozen=True)
class Separated:
    """What differs in a patch from its background."""

    layer: np.ndarray
    """(h, w, 4), float32: differences in B, G and R, and the share, 0 to 1, of the object in a pixel."""
    background: np.ndarray
    """(3,)."""
    box: Box

    def moved(self, scale: float, angle: float) -> tuple[np.ndarray, Box]:
        """The layer at another scale and turned by an angle in degrees, and the object's box in it.

        The turned box is that of the ellipse in the given one: boxes of far objects are loose, and would grow with each
        turn if they were taken for objects.
        """
        height, width = (max(SMALLEST_SIDE, round(side * scale)) for side in self.layer.shape[:2])
        filters = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        layer = cv2.resize(self.layer, (width, height), interpolation=filters)
        x, y = width / self.layer.shape[1], height / self.layer.shape[0]
        box = (self.box[0] * x, self.box[1] * y, self.box[2] * x, self.box[3] * y)
        layer, turn = turn_layer(layer, angle)
        cos, sin = abs(turn[0, 0]), abs(turn[0, 1])
        centre = turn @ (box[0] + box[2] / 2, box[1] + box[3] / 2, 1)
        sides = math.hypot(box[2] * cos, box[3] * sin), math.hypot(box[2] * sin, box[3] * cos)
        return layer, (centre[0] - sides[0] / 2, centre[1] - sides[1] / 2, *sides)


def separate(cutout: Cutout) -> Separated | None:
    """An object without its background; None for uneven surroundings."""
    patch = cutout.patch.astype(np.float32)
    border = _border(patch)
    if _is_uneven(border):
        return None
    background = np.median(border, axis=0)
    difference = patch - background
    strength = np.linalg.norm(difference, axis=2, keepdims=True)
    share = np.clip((strength - NOISE[0]) / (NOISE[1] - NOISE[0]), 0, 1)
    height, width = patch.shape[:2]
    share *= (_ramp(height)[:, None] * _ramp(width))[..., None]
    return Separated(np.concatenate([difference, share], axis=2), background, cutout.box)


def blend(image: np.ndarray, layer: np.ndarray, background: np.ndarray, x: int, y: int) -> np.ndarray:
    """An image with an object's layer (h, w, 4) at (x, y).

    The differences are added to the image or, as often, the object's own colours take its place.
    """
    result = image.copy()
    place = result[y : y + layer.shape[0], x : x + layer.shape[1]]
    before = place.astype(np.float32)
    difference = layer[..., :3] * np.random.uniform(*STRENGTHS) * (-1 if np.random.uniform() < INVERTED else 1)
    change = difference if np.random.uniform() < 0.5 else background + difference - before
    place[...] = np.clip(before + layer[..., 3:] * change, 0, 255).astype(image.dtype)
    return result


def erase(image: np.ndarray, box: Box) -> np.ndarray | None:
    """An image without an object, filled in from around it; None for uneven surroundings and large objects."""
    x0, y0, x1, y1 = _surroundings(image, box)
    inside = image[y0:y1, x0:x1]
    too_large = inside.shape[0] * inside.shape[1] > LARGEST_ERASED**2
    if not inside.size or too_large or _is_uneven(_border(inside)):
        return None
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[y0:y1, x0:x1] = 1
    return cv2.inpaint(image, mask, 3, cv2.INPAINT_TELEA)


def _draw_scale(patch: Sequence[int], image: Sequence[int], usual: float) -> float:
    factor = usual * float(np.exp(np.random.uniform(*np.log(SCALES))))
    return min(factor, *(LARGEST_SHARE * whole / max(side, 1) for side, whole in zip(patch[:2], image[:2])))


def _draw(items: Sequence) -> object:
    return items[np.random.randint(len(items))]


def _box(annotation: dict) -> Box:
    return tuple(BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYWH_ABS))


def _surroundings(image: np.ndarray, box: Box) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of a box with some pixels around it, within the image."""
    x, y, width, height = box
    around = MARGIN * max(width, height)
    x0, y0 = max(0, int(x - around)), max(0, int(y - around))
    return x0, y0, min(image.shape[1], int(x + width + around) + 1), min(image.shape[0], int(y + height + around) + 1)


def _border(patch: np.ndarray) -> np.ndarray:
    """The outermost pixels, (N, 3)."""
    return np.concatenate([patch[0], patch[-1], patch[:, 0], patch[:, -1]])


def _is_uneven(border: np.ndarray) -> bool:
    """Whether more than a plain colour is around an object."""
    return border.std(axis=0, dtype=np.float32).mean() > MOST_UNEVEN


def _ramp(length: int) -> np.ndarray:
    """From near 0 at the ends to 1 inside."""
    from_end = np.minimum(np.arange(length) + 1, length - np.arange(length))
    return np.minimum(1, from_end / max(1.0, SOFT_EDGE * length)).astype(np.float32)


def _overlap(first: Box, second: Box) -> bool:
    return all(min(first[i] + first[i + 2], second[i] + second[i + 2]) > max(first[i], second[i]) for i in (0, 1))
