"""Airplanes, birds, drones and helicopters from simple solids, seen from any side: shapes that a few clips lack.

Solids are convex or flat polygons in space; x is forward, y to the left, z up, and an aircraft is about one unit long.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from airborne_pictures import Picture, finish, sky

CANVAS = 384
"""Side in pixels of the square that a shape is drawn in before it is shrunk."""
SHAPE_SIDE = 300
"""Longer side in pixels of the shape there."""
_CIRCLE = np.linspace(0, 2 * np.pi, 24, endpoint=False)
LONGEST = (12, 180)
"""Range of a shape's longer side in a picture, in pixels; small ones are more frequent."""
AMBIENT = 0.55
"""Brightness of what the sun does not reach."""

Points = np.ndarray
"""(N, 3)."""


@dataclass(frozen=True)
class Face:
    """A flat part of a shape."""

    points: Points
    colour: np.ndarray
    """(3,), B G R, 0 to 255."""
    opacity: float = 1.0


class Shape:
    """Faces that solids are added to."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.faces: list[Face] = []

    def plate(self, points: list[tuple[float, float, float]], colour: np.ndarray, opacity: float = 1.0) -> None:
        """A flat polygon, such as a wing."""
        self.faces.append(Face(np.asarray(points, np.float64), colour, opacity))

    def ellipsoid(self, centre: tuple, radii: tuple, colour: np.ndarray, sectors: int = 12, rings: int = 8) -> None:
        """An ellipsoid with its axes along x, y and z."""
        across, along = np.linspace(0, 2 * np.pi, sectors + 1), np.linspace(0, np.pi, rings + 1)

        def point(a: float, b: float) -> tuple[float, ...]:
            unit = (math.cos(b), math.sin(b) * math.cos(a), math.sin(b) * math.sin(a))
            return tuple(c + r * u for c, r, u in zip(centre, radii, unit))

        for b0, b1 in zip(along, along[1:]):
            for a0, a1 in zip(across, across[1:]):
                self.plate([point(a0, b0), point(a1, b0), point(a1, b1), point(a0, b1)], colour)

    def rod(self, start: tuple, end: tuple, radius: float, colour: np.ndarray, end_radius: float | None = None) -> None:
        """A bar with four sides, which may taper off."""
        start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
        axis = (end - start) / np.linalg.norm(end - start)
        first = np.cross(axis, (0, 0, 1) if abs(axis[2]) < 0.9 else (0, 1, 0))
        first /= np.linalg.norm(first)
        second = np.cross(axis, first)
        sides = [first, second, -first, -second]
        far = radius if end_radius is None else end_radius
        for one, other in zip(sides, sides[1:] + sides[:1]):
            self.plate([start + radius * one, start + radius * other, end + far * other, end + far * one], colour)

    def rotor(self, centre: tuple, radius: float, blades: int, colour: np.ndarray, upright: bool = False) -> None:
        """Blades in a plane, the disc that they blur to, or both."""
        angle = self.rng.uniform(0, np.pi)

        def point(r: float, a: float) -> tuple[float, float, float]:
            u, v = r * math.cos(a), r * math.sin(a)
            return (centre[0] + u, centre[1] + (0 if upright else v), centre[2] + (v if upright else 0))

        if self.rng.random() < 0.6:
            disc = [point(radius, a) for a in _CIRCLE]
            self.plate(disc, colour, float(self.rng.uniform(0.08, 0.35)))
        if self.rng.random() < 0.8:
            width = self.rng.uniform(0.05, 0.12)
            for blade in range(blades):
                a = angle + 2 * np.pi * blade / blades
                corners = [point(0.05 * radius, a - width), point(radius, a - width / 2), point(radius, a + width / 2)]
                self.plate([*corners, point(0.05 * radius, a + width)], colour, float(self.rng.uniform(0.4, 1)))


def paint(rng: np.random.Generator) -> np.ndarray:
    """A colour, dark in half of all cases, most almost grey: alike for all classes, so that it tells nothing."""
    level = rng.uniform(15, 70) if rng.random() < 0.5 else rng.uniform(90, 250)
    return np.clip(level + rng.normal(0, 45 if rng.random() < 0.25 else 6, 3), 0, 255)


def airplane(rng: np.random.Generator) -> Shape:
    """An airliner or a light aircraft."""
    shape, body, trim = Shape(rng), paint(rng), paint(rng)
    jet = rng.random() < 0.6
    radius = rng.uniform(0.045, 0.065) if jet else rng.uniform(0.06, 0.09)
    shape.ellipsoid((0, 0, 0), (0.5, radius, radius * rng.uniform(1, 1.3)), body)
    span = rng.uniform(0.4, 0.55) if jet else rng.uniform(0.5, 0.75)
    sweep, chord = (rng.uniform(0.15, 0.3), 0.17) if jet else (rng.uniform(0, 0.04), rng.uniform(0.12, 0.18))
    taper = rng.uniform(0.25, 0.45) if jet else rng.uniform(0.6, 1)
    root, height = rng.uniform(0, 0.12), radius * rng.uniform(-0.8, 1.2)
    dihedral = rng.uniform(0, 0.06)
    up = radius * 2.6 if rng.random() < 0.25 else radius * 0.4
    engines = int(rng.integers(1, 3) if jet else rng.integers(0, 2))
    for side in (-1, 1):
        tip = (root - sweep, side * span, height + dihedral)
        wing = [(root, 0, height), tip, (tip[0] - chord * taper, tip[1], tip[2]), (root - chord, 0, height)]
        shape.plate(wing, body * 0.95)
        tail = -0.42
        elevator = [(tail, 0, up), (tail - 0.1 * jet - 0.02, side * span * 0.38, up + dihedral / 3)]
        shape.plate([*elevator, (tail - 0.13, side * span * 0.38, up + dihedral / 3), (tail - 0.11, 0, up)], body * 0.9)
        for engine in range(engines):
            y = side * span * (0.33 + 0.3 * engine)
            share = abs(y) / span
            at = (root - sweep * share + 0.01, y, height + dihedral * share - 0.035)
            shape.ellipsoid(at, (0.07, 0.024, 0.024), trim, 8, 4)
            if not jet:
                turning = [(at[0] + 0.07, y + 0.07 * math.cos(a), at[2] + 0.07 * math.sin(a)) for a in _CIRCLE]
                shape.plate(turning, trim, 0.2)
    fin = rng.uniform(0.14, 0.22)
    shape.plate([(-0.32, 0, radius * 0.6), (-0.45, 0, fin), (-0.53, 0, fin), (-0.49, 0, radius * 0.3)], trim)
    return shape


def helicopter(rng: np.random.Generator) -> Shape:
    """A body with a boom, a large rotor above and a small one at its end."""
    shape, body, dark = Shape(rng), paint(rng), paint(rng)
    height, width = rng.uniform(0.1, 0.15), rng.uniform(0.08, 0.12)
    shape.ellipsoid((0.1, 0, 0), (rng.uniform(0.2, 0.27), width, height), body)
    shape.ellipsoid((0.02, 0, height * 0.8), (0.13, width * 0.6, height * 0.45), body * 0.8, 8, 5)
    end = (-rng.uniform(0.42, 0.55), 0, rng.uniform(0.02, 0.1))
    shape.rod((-0.05, 0, height * 0.3), end, 0.05, body * 0.9, 0.018)
    fin, level = rng.uniform(0.1, 0.2), end[2]
    shape.plate([(end[0] + 0.1, 0, level), (end[0] - 0.06, 0, level + fin), (end[0] - 0.1, 0, level + fin), end], body)
    front, rear = end[0] + 0.12, end[0] + 0.05
    shape.plate([(front, -0.1, level), (front, 0.1, level), (rear, 0.1, level), (rear, -0.1, level)], body)
    shape.rotor((end[0] - 0.05, 0.03, end[2] + fin * 0.7), rng.uniform(0.07, 0.1), 2, dark, upright=True)
    mast = height * rng.uniform(1.4, 1.8)
    shape.rod((0.05, 0, height * 0.6), (0.05, 0, mast), 0.02, dark)
    shape.rotor((0.05, 0, mast), rng.uniform(0.42, 0.58), int(rng.integers(2, 6)), dark)
    if rng.random() < 0.6:
        for side in (-width, width):
            level = -height * 1.35
            shape.rod((-0.1, side, level), (0.26, side, level), 0.01, dark)
            for x in (0.0, 0.17):
                shape.rod((x, side * 0.6, -height * 0.6), (x, side, level), 0.008, dark)
    return shape


def drone(rng: np.random.Generator) -> Shape:
    """A flat body with four arms, a rotor on each, and often legs and a camera."""
    shape, body, dark = Shape(rng), paint(rng), paint(rng)
    length, width = rng.uniform(0.14, 0.24), rng.uniform(0.07, 0.13)
    shape.ellipsoid((0, 0, 0), (length, width, rng.uniform(0.04, 0.07)), body)
    reach, spread, lift = rng.uniform(0.24, 0.32), rng.uniform(0.24, 0.36), rng.uniform(-0.02, 0.06)
    rotor, pod = rng.uniform(0.13, 0.22), rng.uniform(0.02, 0.035)
    legs = rng.uniform(0.08, 0.14) if rng.random() < 0.6 else 0.0
    for x in (-reach, reach):
        for y in (-spread, spread):
            shape.rod((x * 0.3, y * 0.2, 0), (x, y, lift), 0.022, body * 0.9)
            shape.ellipsoid((x, y, lift + 0.02), (pod, pod, pod * 1.6), dark, 8, 4)
            shape.rotor((x, y, lift + 0.06), rotor, 2, dark)
            if legs:
                shape.rod((x * 0.9, y * 0.9, lift), (x * 0.95, y * 0.95, lift - legs), 0.016, dark)
    if rng.random() < 0.6:
        shape.ellipsoid((length * 0.6, 0, -0.07), (0.04, 0.04, 0.04), dark, 8, 4)
    return shape


def bird(rng: np.random.Generator) -> Shape:
    """A body with a tail and two wings of two parts each, at any moment of their beat."""
    shape, body = Shape(rng), paint(rng)
    length = rng.uniform(0.16, 0.24)
    shape.ellipsoid((0, 0, 0), (length, 0.055, 0.055), body, 8, 5)
    shape.ellipsoid((length, 0, 0.015), (0.06, 0.035, 0.035), body, 8, 4)
    spread, root, end = rng.uniform(0.03, 0.1), -length * 0.8, -length - 0.14
    shape.plate([(root, 0.02, 0), (end, spread, 0), (end, -spread, 0), (root, -0.02, 0)], body * 0.9)
    beat = rng.uniform(-0.7, 1.0)
    bend = rng.uniform(-0.6, 0.2)
    inner, outer = rng.uniform(0.18, 0.28), rng.uniform(0.18, 0.32)
    chord, back = rng.uniform(0.13, 0.2), rng.uniform(0, 0.2)
    for side in (-1, 1):
        knee = (0.06, side * inner * math.cos(beat), inner * math.sin(beat))
        tip = (0.06 - back, knee[1] + side * outer * math.cos(beat + bend), knee[2] + outer * math.sin(beat + bend))
        shape.plate([(0.09, 0, 0.02), knee, (knee[0] - chord, *knee[1:]), (0.09 - chord * 1.2, 0, 0.02)], body)
        shape.plate([knee, tip, (tip[0] - chord * 0.25, *tip[1:]), (knee[0] - chord, *knee[1:])], body * 0.95)
    return shape


SHAPES: dict[str, Callable[[np.random.Generator], Shape]] = {
    "airplane": airplane,
    "bird": bird,
    "drone": drone,
    "helicopter": helicopter,
}


def view(shape: Shape, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A shape from a side drawn by chance: colours (S, S, 3) in BGR, times the opacity (S, S, 1), both float32.

    Heading is any, bank and climb are small, and the watcher stands on the ground, most often.
    """
    turn = _rotation("z", rng.uniform(0, 2 * np.pi))
    tilt = _rotation("x", rng.normal(0, 0.3)) @ _rotation("y", rng.normal(0, 0.2))
    watch = _rotation("x", np.deg2rad(rng.uniform(-75, 10)))
    seen = watch @ turn @ tilt
    sun = np.asarray((rng.normal(0, 0.6), rng.normal(0, 0.6), 1.0))
    sun = watch @ (sun / np.linalg.norm(sun))
    points = [face.points @ seen.T for face in shape.faces]
    everything = np.concatenate(points)
    low, high = everything.min(axis=0), everything.max(axis=0)
    scale = SHAPE_SIDE / max(high[0] - low[0], high[2] - low[2], 1e-6)
    colours, opacity = np.zeros((CANVAS, CANVAS, 3), np.float32), np.zeros((CANVAS, CANVAS, 1), np.float32)
    for number in sorted(range(len(points)), key=lambda i: -points[i][:, 1].mean()):  # what is far away first
        face, corners = shape.faces[number], points[number]
        flat = np.stack([corners[:, 0] - (low[0] + high[0]) / 2, (low[2] + high[2]) / 2 - corners[:, 2]], axis=1)
        part, share = _cover(flat * scale + CANVAS / 2, face.opacity)
        colours[part] += share * ((light_on(corners, sun) * face.colour).astype(np.float32) - colours[part])
        opacity[part] += share * (1 - opacity[part])
    return colours, opacity


def _cover(outline: np.ndarray, opacity: float) -> tuple[tuple[slice, slice], np.ndarray]:
    """The part of the canvas that a polygon (N, 2) lies in, and its opacity there, (h, w, 1), smooth at the edges."""
    x0, y0 = np.floor(outline.min(axis=0)).astype(int) - 1
    x1, y1 = np.ceil(outline.max(axis=0)).astype(int) + 2
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    fixed_point = np.round((outline - (x0, y0)) * 16).astype(np.int32)
    cv2.fillPoly(mask, [fixed_point], 255, cv2.LINE_AA, shift=4)
    return (slice(y0, y1), slice(x0, x1)), mask[..., None].astype(np.float32) * (opacity / 255)


def light_on(corners: Points, sun: np.ndarray) -> float:
    """How bright a face is that is lit from both sides, as its normal may point to either."""
    normal = np.cross(corners[1] - corners[0], corners[-1] - corners[0])
    if np.linalg.norm(normal) < 1e-12:  # the first two corners are one, as at the end of an ellipsoid
        normal = np.cross(corners[2] - corners[1], corners[0] - corners[1])
    normal = normal / max(np.linalg.norm(normal), 1e-12)
    if normal[1] > 0:  # of the two sides, the one that is seen
        normal = -normal
    return AMBIENT + (1 - AMBIENT) * max(0.0, float(normal @ sun))


def _rotation(axis: str, angle: float) -> np.ndarray:
    """(3, 3): a turn about an axis, in radians."""
    c, s = math.cos(angle), math.sin(angle)
    return np.asarray(
        {
            "x": [[1, 0, 0], [0, c, -s], [0, s, c]],
            "y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
            "z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
        }[axis]
    )


def any_size(rng: np.random.Generator) -> float:
    """A longer side in pixels, drawn by chance."""
    return float(np.exp(rng.uniform(*np.log(LONGEST))))


def draw(shape: Shape, rng: np.random.Generator, height: int, width: int, longest: float) -> Picture:
    """A shape in a sky, its longer side `longest` pixels: hazy, blurred and compressed as far objects in videos are."""
    colours, opacity = view(shape, rng)
    factor = longest / SHAPE_SIDE
    side = max(3, round(CANVAS * factor))
    colours = cv2.resize(colours, (side, side), interpolation=cv2.INTER_AREA)
    opacity = cv2.resize(opacity, (side, side), interpolation=cv2.INTER_AREA)[..., None]
    clear = rng.uniform(0.45, 1)
    image = sky(rng, height, width)
    x, y = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
    image[y : y + side, x : x + side] += clear * (colours - opacity * image[y : y + side, x : x + side])
    # Of a thin shape, such as a glider from the side, no pixel may be covered by a tenth.
    return finish(image, x, y, opacity[..., 0], min(0.1, 0.3 * float(opacity.max())), rng)
