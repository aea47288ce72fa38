"""The pictures of the synthetic actions: a textured shape (the noun) does something (the verb) over a textured ground.

Random numbers come from one seeded generator per video; splits have different ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from synthetic_scene import CLASSES, FPS, RenderError, Thing, draw, make_background, make_colour, make_texture, sense

RENDERER_VERSION = 1  # raise it when the pictures change
NOUNS = CLASSES
VERBS = ("move_left", "move_right", "circle", "rotate", "grow", "enter", "leave", "collide")
SEED_WORDS = {"train": 101, "test": 102}
CLIP_FRAMES = 24


@dataclass(frozen=True)
class Settings:
    """What determines a split's content. Each video shows every verb with every noun once, one after the other."""

    split: str
    videos: int
    side: int = 64
    """Width and height in pixels."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.videos < 1:
            raise RenderError(f"videos must be at least 1, got {self.videos}")
        if self.side % 2 or not 32 <= self.side <= 1024:
            raise RenderError(f"the side must be even, and 32 to 1024 pixels, got {self.side}")
        if self.seed < 0:
            raise RenderError(f"the seed must not be negative, got {self.seed}")

    def generator(self, video: int) -> np.random.Generator:
        """The generator of one video."""
        return np.random.default_rng([self.seed, SEED_WORDS[self.split], video])

    def stamp(self) -> dict:
        """What a finished split records of itself."""
        return {"renderer_version": RENDERER_VERSION, "fps": FPS, "clip_frames": CLIP_FRAMES, **asdict(self)}


@dataclass(frozen=True)
class Action:
    """A clip of a video: its first frame, and its classes."""

    first_frame: int
    verb: int
    noun: int


def plan_video(settings: Settings, video: int) -> list[Action]:
    """The actions of a video in their order."""
    order = settings.generator(video).permutation(len(VERBS) * len(NOUNS))
    return [Action(place * CLIP_FRAMES, *divmod(int(pair), len(NOUNS))) for place, pair in enumerate(order)]


def render_video(settings: Settings, video: int) -> Iterator[np.ndarray]:
    """The frames (side, side, 3), BGR uint8, of a video."""
    rng = settings.generator(video)
    rng.permutation(len(VERBS) * len(NOUNS))  # that of the plan
    for action in plan_video(settings, video):
        yield from render_action(rng, settings.side, VERBS[action.verb], action.noun)


def render_action(rng: np.random.Generator, side: int, verb: str, noun: int) -> Iterator[np.ndarray]:
    """The frames of one action."""
    ground = dim(make_background(rng, side, side))
    average = ground.mean((0, 1)).astype(np.float32)
    paths = make_paths(rng, side, verb)
    things = [make_thing(rng, noun, average, path) for path in paths]
    noise = int(rng.integers(1, 4))
    for frame in range(CLIP_FRAMES):
        image, owner = ground.copy(), np.zeros((side, side), np.uint8)
        for number, thing in enumerate(things, 1):
            draw(image, owner, thing, number, thing.path[frame])
        yield sense(rng, image, noise, 1.0)


def dim(ground: np.ndarray) -> np.ndarray:
    """A ground of little contrast, so that a small model finds what is on it."""
    return (ground // 4 + 32).astype(np.uint8)


def make_thing(rng: np.random.Generator, noun: int, average: np.ndarray, path: np.ndarray) -> Thing:
    """An object on a path."""
    outline = make_colour(rng, 0, 50) if rng.random() < 0.7 else make_colour(rng, 205, 256)
    return Thing(noun, make_texture(rng, average), outline.astype(np.uint16), (1.0, 1.0), path)


def make_paths(rng: np.random.Generator, side: int, verb: str) -> list[np.ndarray]:
    """For each object of an action, its (CLIP_FRAMES, 4) path: x, y, radius, angle."""
    time = np.linspace(0.0, 1.0, CLIP_FRAMES)
    radius = side * (0.15 + 0.07 * rng.random())
    middle = side * (0.4 + 0.2 * rng.random(2))
    angle = np.full(CLIP_FRAMES, rng.random() - 0.5)
    still = np.tile(middle, (CLIP_FRAMES, 1))
    radii = np.full(CLIP_FRAMES, radius)
    if verb == "collide":
        return _collision(rng, side, radius * 0.8, middle)
    if verb in ("move_left", "move_right"):
        reach = side * (0.2 + 0.15 * rng.random())
        sign = 1 if verb == "move_right" else -1
        still[:, 0] = side / 2 + sign * reach * (2 * time - 1)
    elif verb == "circle":
        turn = rng.choice((-1, 1)) * 2 * math.pi * (0.8 + 0.5 * rng.random())
        phase, reach = 2 * math.pi * rng.random(), side * (0.15 + 0.08 * rng.random())
        still = side / 2 + reach * np.stack([np.cos(phase + turn * time), np.sin(phase + turn * time)], 1)
    elif verb == "rotate":
        angle = angle + rng.choice((-1, 1)) * (2.5 + 2.0 * rng.random()) * time
    elif verb == "grow":
        radii = radius * (0.6 + (0.9 + 0.5 * rng.random()) * time)
    else:
        still = _crossing(rng, side, radius, middle, time if verb == "enter" else time[::-1])
    return [np.column_stack([still, radii, angle])]


def _crossing(rng: np.random.Generator, side: int, radius: float, middle: np.ndarray, time: np.ndarray) -> np.ndarray:
    """From outside of the picture, over one of its four sides, to its middle."""
    axis, far = int(rng.integers(2)), bool(rng.integers(2))
    outside = middle.copy()
    outside[axis] = side + radius * 1.3 if far else -radius * 1.3
    return outside + (middle - outside) * np.minimum(time * 1.2, 1.0)[:, None]


def _collision(rng: np.random.Generator, side: int, radius: float, middle: np.ndarray) -> list[np.ndarray]:
    """Two objects that run into each other and bounce back."""
    heading = 2 * math.pi * rng.random()
    along = np.array([math.cos(heading), math.sin(heading)])
    distance = np.abs(np.linspace(-1.0, 1.0, CLIP_FRAMES)) * side * (0.2 + 0.08 * rng.random()) + radius * 0.95
    paths = []
    for sign in (-1, 1):
        places = middle + sign * distance[:, None] * along
        paths.append(np.column_stack([places, np.full((CLIP_FRAMES, 2), (radius, rng.random() - 0.5))]))
    return paths
