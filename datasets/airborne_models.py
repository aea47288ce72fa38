"""Aircraft from files with three-dimensional models (AC3D, `.ac`), as shapes that can be drawn from any side.

AC3D is the text format of flight simulators such as FlightGear: x is backward, y up, z to the left, and a model is a
tree of objects with vertices and polygons.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from airborne_shapes import Face, Shape, paint

CELLS = 100
"""Vertices are moved to a grid with so many cells along the model, which leaves no faces too small to be seen."""
LARGEST_FILE = 64 * 2**20
"""Bytes."""
DEEPEST = 64
"""Objects in objects."""
UNSEEN = re.compile("shadow|light|beam|glow|disc|disk|blur|flare|smoke|trail|fire|flame|interior|cockpit|panel")
"""Names of objects that are inside, or transparent images that are not told from solid ones here."""
ROTOR = re.compile("rotor|blade|prop")
TO_SHAPE = np.asarray(((-1, 0, 0), (0, 0, 1), (0, 1, 0)), np.float64)
"""From AC3D's axes to those of shapes: x forward, y to the left, z up."""


_Object = tuple[str, np.ndarray]
"""Name and triangles (N, 3, 3), in AC3D's axes."""


class ModelFileError(ValueError):
    """A file that is not an AC3D model, or a damaged one."""


@dataclass(frozen=True)
class Model:
    """A model of an aircraft: triangles, one unit long."""

    triangles: np.ndarray
    """(N, 3, 3): corners; x forward, y to the left, z up; the middle of the box around them is the origin."""
    parts: np.ndarray
    """(N,): number of the object that a triangle belongs to."""
    names: list[str]
    """Of the objects."""


def read_model(path: Path) -> Model:
    """The model of an AC3D file, without its small parts.

    Raises ModelFileError, OSError.
    """
    if path.stat().st_size > LARGEST_FILE:
        raise ModelFileError(f"{path}: more than {LARGEST_FILE >> 20} MB")
    lines = _Lines(path)
    if not lines.next().startswith("AC3D"):
        raise ModelFileError(f"{path}: not an AC3D model, as it does not begin with AC3D")
    triangles, parts, names = [], [], []
    try:
        for name, of_object in _objects(lines, math.inf, np.eye(3), np.zeros(3)):
            if not UNSEEN.search(name.lower()):
                parts += [len(names)] * len(of_object)
                names.append(name)
                triangles += [of_object]
    except (ValueError, IndexError) as error:  # IndexError: a keyword without its values
        raise ModelFileError(f"{path}: line {lines.number}: {error}") from error
    if not parts:
        raise ModelFileError(f"{path}: no polygons")
    corners = np.concatenate(triangles)
    if not (np.abs(corners) < 1e6).all():
        raise ModelFileError(f"{path}: vertices that are too large or not finite")
    if not np.ptp(corners, axis=(0, 1))[[0, 2]].any():
        raise ModelFileError(f"{path}: a model of no size")
    model = _simplified(corners @ TO_SHAPE.T, np.asarray(parts), names)
    if not len(model.triangles):
        raise ModelFileError(f"{path}: no polygon has an area")
    return model


class _Lines:
    """Lines of a file, and how far it was read."""

    def __init__(self, path: Path) -> None:
        self.lines = path.read_text(encoding="latin-1").splitlines()
        self.number = 0

    def next(self) -> str:
        """The next line that is not empty; "" at the end."""
        while self.number < len(self.lines):
            self.number += 1
            line = self.lines[self.number - 1].strip()
            if line:
                return line
        return ""

    def numbers(self, count: str, columns: int) -> np.ndarray:
        """(count, columns), float64: the first columns of so many lines that follow."""
        if not 0 <= int(count) <= len(self.lines) - self.number:
            raise ValueError(f"{count} lines should follow, but the file has {len(self.lines) - self.number} more")
        rows = [self.next().split()[:columns] for _ in range(int(count))]
        return np.asarray(rows, np.float64).reshape(-1, columns)

    def skip_characters(self, count: int) -> None:
        """Skip a text of so many characters that follows as lines."""
        while count > 0 and self.number < len(self.lines):
            count -= len(self.lines[self.number]) + 1
            self.number += 1


def _objects(
    lines: _Lines, count: float, rotation: np.ndarray, origin: np.ndarray, depth: int = 0
) -> Iterator[_Object]:
    """So many objects that follow, and those below them; fewer where the file ends, as some that are in use do."""
    if depth > DEEPEST:
        raise ValueError(f"objects lie more than {DEEPEST} deep in each other")
    while count > 0 and (line := lines.next()):
        count -= 1
        if line.startswith("OBJECT"):
            yield from _object(lines, rotation, origin, depth)
        elif depth:
            raise ValueError(f"an object should begin here, not {line[:40]!r}")


def _object(lines: _Lines, rotation: np.ndarray, origin: np.ndarray, depth: int) -> Iterator[_Object]:
    """An object, if it has polygons, and those below it, placed as its parents are.

    Its last line says how many those are; where the file ends before, there are none.
    """
    name, vertices, triangles, of_parents, kids = "", np.zeros((0, 3)), [], rotation, 0
    while line := lines.next():
        key, *values = line.split()
        if key == "name":
            name = line[len(key) :].strip().strip('"')
        elif key == "data":
            lines.skip_characters(int(values[0]))
        elif key == "rot":
            rotation = of_parents @ np.asarray(values, np.float64).reshape(3, 3).T
        elif key == "loc":
            origin = origin + of_parents @ np.asarray(values[:3], np.float64)
        elif key == "numvert":
            vertices = lines.numbers(values[0], 3) @ rotation.T + origin
        elif key == "SURF":
            triangles += _polygon(lines, int(values[0], 16), vertices)
        elif key == "kids":
            kids = int(values[0])
            break
    if triangles:
        yield name, np.asarray(triangles)
    yield from _objects(lines, kids, rotation, origin, depth + 1)


def _polygon(lines: _Lines, flags: int, vertices: np.ndarray) -> list[np.ndarray]:
    """The triangles of the polygon that begins here; none for a line."""
    while line := lines.next():
        key, *values = line.split()
        if key == "refs":
            corners = lines.numbers(values[0], 1)[:, 0].astype(np.int64)
            if len(corners) and not 0 <= corners.min() <= corners.max() < len(vertices):
                raise ValueError(f"a polygon has a corner that is none of the object's {len(vertices)} vertices")
            if flags & 0xF:
                return []
            points = vertices[corners]
            return [points[[0, i, i + 1]] for i in range(1, len(corners) - 1)]
    raise ValueError("a polygon without corners")


def _simplified(corners: np.ndarray, parts: np.ndarray, names: list[str]) -> Model:
    """A model one unit long, its vertices on a grid, without the triangles that this leaves without an area."""
    low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
    length = float(max(high[0] - low[0], high[1] - low[1]))
    cells = np.round((corners - (low + high) / 2) * (CELLS / length)).astype(np.int64)
    first, second = cells[:, 1] - cells[:, 0], cells[:, 2] - cells[:, 0]
    whole = np.any(np.cross(first, second) != 0, axis=-1)
    sides = np.sort(cells @ np.asarray((1 << 40, 1 << 20, 1)), axis=1)
    _, once = np.unique(sides, axis=0, return_index=True)
    kept = np.intersect1d(np.flatnonzero(whole), once)
    return Model(cells[kept] / CELLS, parts[kept], names)


def shape_of(model: Model, rng: np.random.Generator, rotor: bool) -> Shape:
    """A model in colours drawn by chance.

    Args:
        rotor: whether it has a large rotor above, which is added where the file lacks it: simulators often keep it, or
            its blades, in a file of its own.
    """
    shape, body, trim = Shape(rng), paint(rng), paint(rng)
    other_colour = rng.random(len(model.names)) < 0.2
    shades = rng.uniform(0.85, 1.0, len(model.names))
    for corners, part in zip(model.triangles, model.parts):
        shape.faces.append(Face(corners, (trim if other_colour[part] else body) * shades[part]))
    if rotor and not _has_large_rotor(model):
        points = model.triangles.reshape(-1, 3)
        front = points[points[:, 0] > -0.15]
        mast = front[front[:, 2].argmax()]
        shape.rotor((mast[0], 0.0, mast[2] + 0.01), rng.uniform(0.42, 0.55), int(rng.integers(2, 6)), trim)
    return shape


def _has_large_rotor(model: Model) -> bool:
    """Whether parts that are named so, together, are as wide as a main rotor."""
    named = np.asarray([ROTOR.search(name.lower()) is not None for name in model.names])
    points = model.triangles[named[model.parts]].reshape(-1, 3)
    return len(points) > 0 and float(np.ptp(points[:, :2], axis=0).max()) > 0.55
