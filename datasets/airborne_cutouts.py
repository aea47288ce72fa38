"""Objects cut out of photos with even backgrounds, such as airplanes in the sky and drones in catalogues."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from airborne_pictures import Picture, finish, sky
from eventful_vitdet.turned_layers import turn_layer

LONGEST_SIDE = 96
"""Pixels of a photo that is looked at; larger ones are shrunk. Objects in videos are rarely larger."""
MOST_UNEVEN = 24.0
"""Distance of colours from the background, within which 95 % of a photo's border have to be."""
LEAST_OTHER_COLOUR = 28.0
"""Distance of an object's colours from the background; on uneven backgrounds twice their own."""
SHARES = (0.012, 0.5)
"""Of a photo, that an object takes."""
LARGEST_OTHER = 0.25
"""Of the object, that something else in the photo may have in pixels."""
SMALLEST_SIDE = 7
"""Pixels of an object's longer side."""
MARGIN = 2
"""Pixels around an object that come along, for soft edges."""
ENLARGED, LARGEST = 3.0, 150.0
"""An object's longer side in a picture: at most so many times that in its photo, and at most so many pixels."""
SMALLEST = 11.0
TURN = 35.0
"""Largest angle, in degrees, by which an object is turned."""


@dataclass(frozen=True)
class Cutout:
    """An object of a photo."""

    colours: np.ndarray
    """(h, w, 3), float32, BGR."""
    opacity: np.ndarray
    """(h, w), float32, 0 to 1."""
    background: np.ndarray
    """(3,): the colour around it."""


def cut_out(photo: np.ndarray) -> Cutout | None:
    """The only object of a photo (H, W, 3), uint8; None where there are several, or the background is uneven."""
    shrink = min(1.0, LONGEST_SIDE / max(photo.shape[:2]))
    if round(shrink * min(photo.shape[:2])) < SMALLEST_SIDE:
        return None
    if shrink < 1:
        photo = cv2.resize(photo, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    image = photo.astype(np.float32)
    found = _distances(image)
    if found is None:
        return None
    distances, uneven, background = found
    part = _only_part(distances > max(LEAST_OTHER_COLOUR, 2 * uneven))
    if part is None:
        return None
    near = cv2.GaussianBlur(cv2.dilate(part, np.ones((3, 3), np.uint8)).astype(np.float32), (0, 0), 0.7)
    opacity = near * np.clip((distances - 0.5 * uneven) / max(uneven, 6.0), 0, 1)
    rows, columns = np.nonzero(part)
    rows = slice(max(0, rows.min() - MARGIN), rows.max() + 1 + MARGIN)
    columns = slice(max(0, columns.min() - MARGIN), columns.max() + 1 + MARGIN)
    return Cutout(image[rows, columns], opacity[rows, columns], background)


def _distances(image: np.ndarray) -> tuple[np.ndarray, float, np.ndarray] | None:
    """How far each pixel's colour is from the background, how far the border's own are, and the background's mean.

    The background is a polynomial of second degree, fitted to the outermost pixels, without the tenth of them that an
    object may cover. None for backgrounds that are none.
    """
    height, width = image.shape[:2]
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    powers = np.stack([np.ones_like(x), x, y, x * y, x**2, y**2], axis=-1).astype(np.float32)
    border = np.ones((height, width), bool)
    border[1:-1, 1:-1] = False
    usual = border
    for _ in range(3):
        background = powers @ np.linalg.lstsq(powers[usual], image[usual], rcond=None)[0]
        distances = np.linalg.norm(image - background, axis=-1)
        usual = border & (distances < max(12.0, 2.5 * float(np.median(distances[usual]))))
        if usual.sum() < 0.9 * border.sum():
            return None
    uneven = float(np.percentile(distances[border], 95))
    return None if uneven > MOST_UNEVEN else (distances, uneven, background[border].mean(axis=0))


def _only_part(strong: np.ndarray) -> np.ndarray | None:
    """The one large connected part of a mask, (H, W), uint8; None without one, or where it is cut off."""
    if not SHARES[0] < strong.mean() < SHARES[1]:
        return None
    _, labels, numbers, _ = cv2.connectedComponentsWithStats(cv2.dilate(strong.astype(np.uint8), np.ones((3, 3))))
    areas = numbers[1:, cv2.CC_STAT_AREA]
    order = np.argsort(-areas)
    if len(order) > 1 and areas[order[1]] > LARGEST_OTHER * areas[order[0]]:
        return None
    part = strong & (labels == 1 + order[0])
    rows, columns = np.nonzero(part)
    is_cut_off = part[[0, -1]].any() or part[:, [0, -1]].any()
    too_small = max(np.ptp(rows), np.ptp(columns)) + 1 < SMALLEST_SIDE
    return None if is_cut_off or too_small else part.astype(np.uint8)


def place(cutout: Cutout, rng: np.random.Generator, height: int, width: int) -> Picture:
    """A picture of an object in a sky, (height, width, 3): turned, of any size, paler, darker or against the light."""
    colours, opacity = _turned(cutout, rng)
    grey = colours.mean(axis=-1, keepdims=True)
    colours = grey + rng.uniform(0.1, 1.1) * (colours - grey)
    image = sky(rng, height, width)
    x, y = int(rng.integers(0, width - opacity.shape[1])), int(rng.integers(0, height - opacity.shape[0]))
    behind = image[y : y + opacity.shape[0], x : x + opacity.shape[1]]
    kind = rng.random()
    if kind < 0.45:  # what was darker than its sky stays darker
        seen = behind + rng.uniform(0.7, 1.3) * (colours - cutout.background.mean())
    elif kind < 0.8:
        seen = rng.uniform(0.7, 1.15) * colours
    else:  # against the light
        seen = rng.uniform(0.15, 0.5) * colours
    behind += rng.uniform(0.5, 1.0) * opacity[..., None] * (seen - behind)
    return finish(image, x, y, opacity, 0.3 * float(opacity.max()), rng)


def _turned(cutout: Cutout, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Colours (h, w, 3) and opacity (h, w) of an object at a size and an angle drawn by chance, perhaps mirrored."""
    layer = np.dstack([cutout.colours, cutout.opacity])
    if rng.random() < 0.5:
        layer = layer[:, ::-1]
    longest = max(cutout.opacity.shape)
    factor = float(np.exp(rng.uniform(np.log(SMALLEST), np.log(min(LARGEST, ENLARGED * longest))))) / longest
    width, height = (max(4, round(side * factor)) for side in reversed(cutout.opacity.shape))
    filters = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    layer = cv2.resize(layer, (width, height), interpolation=filters)
    around = (*cutout.background.tolist(), 0.0)
    layer, _ = turn_layer(layer, rng.uniform(-TURN, TURN), 2, around)
    return layer[..., :3], np.clip(layer[..., 3], 0, 1)
