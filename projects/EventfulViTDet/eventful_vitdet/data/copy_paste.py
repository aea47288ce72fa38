"""Objects of training frames carried to other frames, so that places do not tell which object is in them.

In videos of few places, each with one kind of object, a detector learns the place in the place of the object. Here an
object comes with what differs from its background: what is around it is even, as a sky is, and stays where it was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from detectron2.structures import BoxMode

TRIES = 2
"""Objects that may be carried to an image, each with the set probability."""
SCALES = (0.6, 1.6)
"""Range of the factor of an object's size."""
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

Box = tuple[float, float, float, float]
"""x, y, width, height in pixels."""


class CopyPaste:
    """Gives training images further objects, of frames of the same size: cameras of one kind."""

    def __init__(self, sets: Sequence[Sequence[dict]], read: Callable[[dict], np.ndarray], probability: float) -> None:
        """
        Args:
            sets: the frame dicts of each data set.
            read: reads a frame, (H, W, 3) in BGR.
            probability: of each of TRIES objects.
        """
        self._read = read
        self._probability = probability
        donors: dict = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
        for number, frames in enumerate(sets):
            for frame in frames:
                for annotation in frame["annotations"]:
                    if not annotation.get("iscrowd", 0):
                        of_class = donors[frame["height"], frame["width"]][annotation["category_id"]]
                        of_class[number, frame["video_id"]].append((frame, annotation))
        # By size of frames: classes, each a list of videos, each a list of objects. Plain lists, for other processes.
        self._donors = {
            size: [list(videos.values()) for videos in classes.values()] for size, classes in donors.items()
        }

    def __call__(self, frame: dict, image: np.ndarray) -> tuple[np.ndarray, list[dict]]:
        """A frame's image (H, W, 3) and annotations, with objects carried to it; what is handed in stays as it is."""
        annotations = list(frame["annotations"])
        for _ in range(TRIES):
            if np.random.uniform() < self._probability:
                carried = self._carry(frame, image, [_box(annotation) for annotation in annotations])
                if carried is not None:
                    image = carried[0]
                    annotations.append(carried[1])
        if len(annotations) > len(frame["annotations"]) == 1 and np.random.uniform() < ERASING:
            erased = erase(image, _box(annotations[0]))
            if erased is not None:
                return erased, annotations[1:]
        return image, annotations

    def _carry(self, frame: dict, image: np.ndarray, taken: Sequence[Box]) -> tuple[np.ndarray, dict] | None:
        """The image with an object more, and its annotation; None where the one that was drawn does not fit."""
        classes = self._donors.get((frame["height"], frame["width"]))
        if not classes:
            return None
        donor, annotation = _draw(_draw(_draw(classes)))
        patch, box = cut_out(self._read(donor), _box(annotation))
        factor = _draw_scale(patch.shape, image.shape)
        size = tuple(max(SMALLEST_SIDE, round(side * factor)) for side in patch.shape[:2])
        if min(patch.shape[:2]) < SMALLEST_SIDE or size[0] >= image.shape[0] or size[1] >= image.shape[1]:
            return None
        scales = size[1] / patch.shape[1], size[0] / patch.shape[0]
        filters = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        patch = cv2.resize(patch, size[::-1], interpolation=filters)
        x, y = np.random.randint(image.shape[1] - size[1]), np.random.randint(image.shape[0] - size[0])
        placed = (box[0] * scales[0] + x, box[1] * scales[1] + y, box[2] * scales[0], box[3] * scales[1])
        if any(_overlap(placed, other) for other in taken):
            return None
        blended = blend(image, patch, x, y)
        if blended is None:
            return None
        plain = {"bbox": list(placed), "bbox_mode": BoxMode.XYWH_ABS, "category_id": annotation["category_id"]}
        return blended, {**plain, "iscrowd": 0}


def cut_out(image: np.ndarray, box: Box) -> tuple[np.ndarray, Box]:
    """An object with its surroundings, float32 (h, w, 3), and its box there."""
    x0, y0, x1, y1 = _surroundings(image, box)
    return image[y0:y1, x0:x1].astype(np.float32), (box[0] - x0, box[1] - y0, box[2], box[3])


def blend(image: np.ndarray, patch: np.ndarray, x: int, y: int) -> np.ndarray | None:
    """An image with what differs in a patch from its surroundings at (x, y); None for uneven surroundings.

    The difference is added to the image or, as often, the patch's own colours take its place.
    """
    border = _border(patch)
    if _is_uneven(border):
        return None
    height, width = patch.shape[:2]
    difference = patch - np.median(border, axis=0)
    strength = np.linalg.norm(difference, axis=2, keepdims=True)
    share = np.clip((strength - NOISE[0]) / (NOISE[1] - NOISE[0]), 0, 1)
    share *= (_ramp(height)[:, None] * _ramp(width))[..., None]
    result = image.astype(np.float32)
    place = result[y : y + height, x : x + width]
    place += share * (difference if np.random.uniform() < 0.5 else patch - place)
    return np.clip(result, 0, 255).astype(image.dtype)


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


def _draw_scale(patch: Sequence[int], image: Sequence[int]) -> float:
    factor = float(np.exp(np.random.uniform(*np.log(SCALES))))
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
