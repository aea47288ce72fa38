"""The pictures of the synthetic video data set: textured shapes that move over textured backgrounds.

`render_video(settings, n)` yields the frames of one video with their ground truth. The same settings give the
same frames on every machine: random numbers come from one seeded generator per video, and everything drawn is
integer arithmetic, element-wise (so correctly rounded) float sums and products, or OpenCV's integer polygon
filling (as OpenCV 5 does it: some shapes of OpenCV 4 are a pixel wider).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import cv2
import numpy as np

RENDERER_VERSION = 1  # raise it when the pictures change: splits of other versions are rendered again
CLASSES = ("disc", "square", "triangle", "star", "ring", "cross")
SEED_WORDS = {"train": 1, "test": 2}
DYNAMICS = ("still", "moving", "panning")
MIXTURE = ("moving", "still", "moving", "panning")  # what `mixed` cycles through
FPS = 30
MIN_VISIBLE = 0.25  # share of an object's area that must be seen for it to be annotated
SUB = 2  # sub-samples per pixel and axis at object borders
TEXTURE = 96  # side of an object's texture in texels


class RenderError(Exception):
    """Something the caller can put right; the message says what."""


@dataclass(frozen=True)
class Settings:
    """What determines a split's content; sizes in pixels. Impossible values raise RenderError."""

    split: str
    videos: int
    frames: int
    width: int = 320
    height: int = 256
    seed: int = 0
    dynamics: str = "mixed"

    def __post_init__(self) -> None:
        if min(self.videos, self.frames) < 1:
            raise RenderError(f"videos and frames must be at least 1, got {self.videos} and {self.frames}")
        if self.width % 2 or self.height % 2:
            raise RenderError(f"size {self.width}x{self.height}: video encoders need even sides")
        if not (128 <= self.width <= 4096 and 128 <= self.height <= 4096):
            raise RenderError(f"size {self.width}x{self.height}: both sides must be 128 to 4096 pixels")
        if self.seed < 0:
            raise RenderError(f"the seed must not be negative, got {self.seed}")

    @property
    def unit(self) -> float:
        """Sizes and speeds are made for 320 x 256 and follow the frame."""
        return min(self.width / 320, self.height / 256)

    def generator(self, video: int) -> np.random.Generator:
        """The generator of one video; its seed words differ for any two (seed, split, video)."""
        return np.random.default_rng([self.seed, SEED_WORDS[self.split], video])

    def stamp(self) -> dict:
        """What a finished split records of itself."""
        return {"renderer_version": RENDERER_VERSION, "fps": FPS, **asdict(self)}


@dataclass(frozen=True)
class Thing:
    """One object: what it looks like and where it is in every frame (world pixels, radians)."""

    category: int  # index into CLASSES
    texture: np.ndarray  # (TEXTURE, TEXTURE, 3) uint8
    outline: np.ndarray  # (3,) uint16
    stretch: tuple[float, float]  # half axes over radius
    path: np.ndarray  # (frames, 4) float64: x, y, radius, angle


@dataclass(frozen=True)
class Box:
    """The visible part of one object in one frame."""

    instance: int  # 1 ... number of objects of the video
    category: int  # index into CLASSES
    xywh: list[int]


@dataclass(frozen=True)
class Frame:
    """One rendered frame with its ground truth."""

    image: np.ndarray  # (H, W, 3) uint8, BGR
    owner: np.ndarray  # (H, W) uint8: the instance seen at each pixel, 0 is background
    areas: list[int]  # full area of every object in pixels, hidden and outside parts included
    boxes: list[Box]


def render_video(settings: Settings, video: int) -> Iterator[Frame]:
    """The frames of video number `video` (0-based) of a split, in order."""
    rng = settings.generator(video)
    dynamics = MIXTURE[video % len(MIXTURE)] if settings.dynamics == "mixed" else settings.dynamics
    room = np.full(2, math.ceil(64 * settings.unit) if dynamics == "panning" else 0)
    world = np.array([settings.width, settings.height]) + room
    background = make_background(rng, int(world[1]) + 1, int(world[0]) + 1)
    camera = np.zeros((settings.frames, 2))
    if dynamics == "panning":
        moving = make_activity(rng, settings.frames, int(rng.integers(0, 2)))
        camera = wander(rng, np.zeros(2), room.astype(float), settings.unit * (1 + 2 * rng.random()), moving)
    things = make_things(rng, settings, dynamics, world.astype(float), background)
    noise_level = int(rng.integers(3, 9))
    flicker = 0.03 * rng.random() if rng.random() < 0.25 else 0.0
    for frame in range(settings.frames):
        image = view(background, camera[frame], settings.height, settings.width)
        owner = np.zeros(image.shape[:2], np.uint8)
        offset = np.array([*camera[frame], 0.0, 0.0])
        poses = [thing.path[frame] - offset for thing in things]
        areas = [draw(image, owner, thing, i, pose) for i, (thing, pose) in enumerate(zip(things, poses), 1)]
        image = sense(rng, image, noise_level, 1 + flicker * math.sin(frame * 0.7))
        yield Frame(image, owner, areas, find_boxes(owner, areas, things))


def find_boxes(owner: np.ndarray, areas: list[int], things: list[Thing]) -> list[Box]:
    """Tight boxes of what is seen of every object, without those of which too little is seen."""
    boxes = []
    for number, (area, thing) in enumerate(zip(areas, things), 1):
        seen = owner == number
        if not np.count_nonzero(seen) >= max(1, MIN_VISIBLE * area):
            continue
        columns, rows = np.flatnonzero(seen.any(0)), np.flatnonzero(seen.any(1))
        x, y = int(columns[0]), int(rows[0])
        boxes.append(Box(number, thing.category, [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]))
    return boxes


# -------------------------------------------------------------- textures


def upsample(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear interpolation of an (h, w) float32 grid to (height, width), corners on corners."""

    def neighbours(source: int, target: int) -> tuple[np.ndarray, np.ndarray]:
        position = np.arange(target, dtype=np.float32) * np.float32((source - 1) / (target - 1))
        index = np.minimum(position.astype(np.int32), source - 2)
        return index, position - index.astype(np.float32)

    rows, down = neighbours(grid.shape[0], height)
    columns, right = neighbours(grid.shape[1], width)
    tall = grid[rows] * (1 - down)[:, None] + grid[rows + 1] * down[:, None]
    return tall[:, columns] * (1 - right) + tall[:, columns + 1] * right


def make_noise(rng: np.random.Generator, height: int, width: int, cell: int, octaves: int) -> np.ndarray:
    """Random values around 0, (height, width) float32; the coarsest octave has cells of `cell` pixels."""
    total, amplitude = np.zeros((height, width), np.float32), 0.5
    for octave in range(octaves):
        size = max(2, cell >> octave)
        grid = rng.random((height // size + 2, width // size + 2), dtype=np.float32) - np.float32(0.5)
        total += upsample(grid, height, width) * np.float32(amplitude)
        amplitude *= 0.7
    return total


def make_stripes(rng: np.random.Generator, height: int, width: int, period: int) -> np.ndarray:
    """A slanted triangle wave in -0.5 ... 0.5, (height, width) float32."""
    along, across = (int(v) for v in rng.integers(-16, 17, 2))
    if abs(along) + abs(across) < 8:
        along = 16
    phase = (np.arange(height)[:, None] * along + np.arange(width) * across) % (16 * period)
    return np.abs(phase - 8 * period).astype(np.float32) / np.float32(8 * period) - np.float32(0.5)


def make_colour(rng: np.random.Generator, low: int, high: int) -> np.ndarray:
    return rng.integers(low, high, 3).astype(np.float32)


def blend(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    return first + (second - first) * share[..., None]


def to_bytes(picture: np.ndarray) -> np.ndarray:
    return np.clip(picture, 0, 255).astype(np.uint8)


def make_background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A gradient between two colours with multi-octave noise and, in a third of the videos, stripes."""
    corners = rng.random((2, 2), dtype=np.float32)
    picture = blend(make_colour(rng, 40, 200), make_colour(rng, 40, 200), upsample(corners, height, width))
    picture += make_noise(rng, height, width, 64, 5)[..., None] * np.float32(rng.integers(40, 120))
    picture += make_noise(rng, height, width, 48, 3)[..., None] * make_colour(rng, -40, 41)
    if rng.random() < 1 / 3:
        wave = make_stripes(rng, height, width, int(rng.integers(12, 40)))
        picture += wave[..., None] * np.float32(rng.integers(10, 40))
    return to_bytes(picture)


def make_texture(rng: np.random.Generator, avoid: np.ndarray) -> np.ndarray:
    """An object's skin: a two-colour pattern with shading, its main colour apart from `avoid`."""
    main = make_colour(rng, 20, 236)
    while np.abs(main - avoid).sum() < 100:
        main = make_colour(rng, 20, 236)
    second = np.clip(main + make_colour(rng, -110, 111), 0, 255)
    if rng.random() < 0.5:
        pattern = make_noise(rng, TEXTURE, TEXTURE, int(rng.integers(12, 32)), 3) * 2
    else:
        pattern = make_stripes(rng, TEXTURE, TEXTURE, int(rng.integers(12, 36)))
    corners = np.float32(0.7) + np.float32(0.6) * rng.random((2, 2), dtype=np.float32)
    light = upsample(corners, TEXTURE, TEXTURE)
    return to_bytes(blend(main, second, np.clip(pattern + np.float32(0.5), 0, 1)) * light[..., None])


# -------------------------------------------------------------- motion


def make_activity(rng: np.random.Generator, frames: int, pauses: int) -> np.ndarray:
    """How much an object moves in every frame, 0 (paused) ... 1, with soft starts and stops."""
    active = np.ones(frames + 4)
    for _ in range(pauses):
        start = int(rng.integers(0, frames + 1))
        active[start : start + int(rng.integers(6, 19))] = 0
    return (active[:-4] + active[1:-3] + active[2:-2] + active[3:-1] + active[4:]) / 5


def wander(rng: np.random.Generator, low: np.ndarray, high: np.ndarray, speed: float, active: np.ndarray) -> np.ndarray:
    """(frames, 2) positions between `low` and `high`: pushed at random, reflected at the borders."""
    position = low + (high - low) * rng.random(2)
    heading = rng.random() * 2 * math.pi
    velocity = np.array([math.cos(heading), math.sin(heading)]) * speed
    path = np.empty((len(active), 2))
    for frame in range(len(active)):
        path[frame] = position
        if frame % 8 == 0:
            push = (rng.random(2) - 0.5) * speed * 0.2
        velocity = velocity + push
        norm = math.sqrt(velocity[0] * velocity[0] + velocity[1] * velocity[1])
        velocity = velocity * min(1.0, 1.5 * speed / max(norm, 1e-9))
        position = position + velocity * active[frame]
        velocity = np.where((position < low) | (position > high), -velocity, velocity)
        position = np.clip(position, low, high)
    return path


def make_path(
    rng: np.random.Generator, settings: Settings, dynamics: str, world: np.ndarray, radius: float
) -> np.ndarray:
    """An object's (frames, 4) path. Some may leave the world altogether, most only in part."""
    still = dynamics == "still"
    active = make_activity(rng, settings.frames, int(rng.integers(0, 3)))
    if still and rng.random() < 0.5:
        active[:] = 0
    speed = settings.unit * (0.4 + rng.random() * (1.0 if still else 4.5))
    margin = radius * (1.5 if not still and rng.random() < 0.25 else 0.2)
    path = np.empty((settings.frames, 4))
    path[:, :2] = wander(rng, np.full(2, -margin), world + margin, speed, active)
    elapsed = np.cumsum(active)
    swing, rate, start = rng.random() * 0.25, 0.05 + rng.random() * 0.1, rng.random() * 2 * math.pi
    path[:, 2] = [radius * (1 + swing * math.sin(start + rate * float(t))) for t in elapsed]
    path[:, 2] = np.clip(path[:, 2], 8 * settings.unit, 48 * settings.unit)
    tilt, sway = rng.random() - 0.5, rng.random() * 0.4
    path[:, 3] = [tilt + sway * math.sin(rate * float(t)) for t in elapsed]
    return path


def make_things(
    rng: np.random.Generator, settings: Settings, dynamics: str, world: np.ndarray, background: np.ndarray
) -> list[Thing]:
    """The objects of a video, back to front: two to four in still videos, four to seven in the others."""
    low, high = (2, 5) if dynamics == "still" else (4, 8)
    average = background.mean((0, 1)).astype(np.float32)
    order = rng.permutation(len(CLASSES))  # no class twice before all have had their turn
    things = []
    for number in range(int(rng.integers(low, high))):
        # Radii of 10 to 44 pixels, half of them below 24.
        radius = settings.unit / (1 / 44 + rng.random() ** 2 * (1 / 10 - 1 / 44))
        narrow = 0.8 + rng.random() * 0.2
        outline = make_colour(rng, 0, 50) if rng.random() < 0.7 else make_colour(rng, 205, 256)
        thing = Thing(
            category=int(order[number % len(CLASSES)]),
            texture=make_texture(rng, average),
            outline=outline.astype(np.uint16),
            stretch=(1.0, narrow) if rng.random() < 0.5 else (narrow, 1.0),
            path=make_path(rng, settings, dynamics, world, radius),
        )
        things.append(thing)
    return things


# -------------------------------------------------------------- drawing


def contours(category: int) -> list[np.ndarray]:
    """The outline of a class as (n, 2) polygons inside the unit circle; a second one cuts a hole."""

    def circle(radius: float, points: int, turn: float = 0.0) -> np.ndarray:
        angles = [turn + 2 * math.pi * k / points for k in range(points)]
        return np.array([(radius * math.cos(a), radius * math.sin(a)) for a in angles])

    name = CLASSES[category]
    if name == "disc":
        return [circle(1.0, 40)]
    if name == "square":
        return [circle(1.0, 4, math.pi / 4)]
    if name == "triangle":
        return [circle(1.0, 3, -math.pi / 2)]
    if name == "ring":
        return [circle(1.0, 40), circle(0.55, 32)]
    if name == "star":
        star = circle(1.0, 10, -math.pi / 2)
        star[1::2] *= 0.45
        return [star]
    arm = np.array([(0.32, -0.32), (0.95, -0.32), (0.95, 0.32)])
    quarter = np.array([(0, 1), (-1, 0)])
    return [np.concatenate([arm, arm @ quarter, -arm, -arm @ quarter])]


def outline_masks(thing: Thing, pose: np.ndarray, left: int, top: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """How many sub-samples of each pixel of a square patch lie inside the object, and on its outline.

    Both (side, side) uint8, 0 ... SUB * SUB; (left, top) is the patch's corner in the frame.
    """
    x, y, radius, angle = (float(v) for v in pose)
    cos, sin, fraction_bits = math.cos(angle) * radius, math.sin(angle) * radius, 4
    polygons = []
    for contour in contours(thing.category):
        along, across = contour[:, 0] * thing.stretch[0], contour[:, 1] * thing.stretch[1]
        points = np.stack([x - left + along * cos - across * sin, y - top + along * sin + across * cos], 1)
        points = points * SUB - 0.5  # OpenCV's coordinates name pixel centres
        polygons.append(np.rint(points * (1 << fraction_bits)).astype(np.int32))
    inside = np.zeros((side * SUB, side * SUB), np.uint8)
    edge = np.zeros_like(inside)
    cv2.fillPoly(inside, polygons, 1, cv2.LINE_8, fraction_bits)
    cv2.polylines(edge, polygons, True, 1, SUB * (2 + int(radius / 12)) - 1, cv2.LINE_8, fraction_bits)
    edge &= inside
    return tuple(sum(m[r::SUB, c::SUB] for r in range(SUB) for c in range(SUB)) for m in (inside, edge))


def sample_texture(thing: Thing, pose: np.ndarray, left: int, top: int, side: int) -> np.ndarray:
    """The texture as it lies over a patch, (side, side, 3) uint8: nearest texel, in fixed point."""
    x, y, radius, angle = (float(v) for v in pose)
    bits, scale = 12, TEXTURE / 2 / radius * (1 << 12)
    dx = np.arange(side, dtype=np.int32) * 16 + round((left + 0.5 - x) * 16)
    dy = (np.arange(side, dtype=np.int32) * 16 + round((top + 0.5 - y) * 16))[:, None]
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    u = dx * round(cos / thing.stretch[0]) + dy * round(sin / thing.stretch[0])
    v = dy * round(cos / thing.stretch[1]) - dx * round(sin / thing.stretch[1])
    column = np.clip((u >> (bits + 4)) + TEXTURE // 2, 0, TEXTURE - 1)
    row = np.clip((v >> (bits + 4)) + TEXTURE // 2, 0, TEXTURE - 1)
    return thing.texture.reshape(-1, 3).take(row * TEXTURE + column, axis=0)


def draw(image: np.ndarray, owner: np.ndarray, thing: Thing, number: int, pose: np.ndarray) -> int:
    """Paint one object over `image` and write its number into `owner`; returns its full area in pixels."""
    reach = math.ceil(pose[2]) + 2
    left, top, side = math.floor(pose[0]) - reach, math.floor(pose[1]) - reach, 2 * reach + 1
    inside, edge = outline_masks(thing, pose, left, top, side)
    solid = inside * 2 >= SUB * SUB
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + side, image.shape[1]), min(top + side, image.shape[0])
    if x0 < x1 and y0 < y1:
        window = np.s_[y0 - top : y1 - top, x0 - left : x1 - left]
        skin = sample_texture(thing, pose, left, top, side)[window].astype(np.uint16)
        inner, line = inside[window][..., None].astype(np.uint16), edge[window][..., None].astype(np.uint16)
        under = image[y0:y1, x0:x1]
        mixed = under * (SUB * SUB - inner) + skin * (inner - line) + thing.outline * line
        under[:] = (mixed + SUB * SUB // 2) // (SUB * SUB)
        owner[y0:y1, x0:x1][solid[window]] = number
    return int(np.count_nonzero(solid))


def view(background: np.ndarray, camera: np.ndarray, height: int, width: int) -> np.ndarray:
    """The background seen from `camera` (x, y of the top left corner), bilinear in sixteenths of a pixel."""
    x, y = (round(float(v) * 16) for v in camera)
    part = background[y // 16 : y // 16 + height + 1, x // 16 : x // 16 + width + 1].astype(np.uint16)
    fx, fy = x % 16, y % 16
    mixed = part[:-1, :-1] * ((16 - fx) * (16 - fy)) + part[:-1, 1:] * (fx * (16 - fy))
    mixed += part[1:, :-1] * ((16 - fx) * fy) + part[1:, 1:] * (fx * fy)
    return ((mixed + 128) >> 8).astype(np.uint8)


def sense(rng: np.random.Generator, image: np.ndarray, noise_level: int, gain: float) -> np.ndarray:
    """Brightness gain, then grey noise of at most +-noise_level with a triangular distribution."""
    table = to_bytes(np.rint(np.arange(256) * gain))
    raw = np.frombuffer(rng.bytes(image.shape[0] * image.shape[1]), np.uint8).reshape(image.shape[:2])
    grain = ((raw & 15).astype(np.int16) + (raw >> 4) - 15) * noise_level // 15
    return np.clip(table[image] + grain[..., None], 0, 255).astype(np.uint8)
