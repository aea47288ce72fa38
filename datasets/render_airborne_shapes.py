"""Render stills of airplanes, birds, drones and helicopters in skies, from simple solids: more shapes to train on.

    python datasets/render_airborne_shapes.py --output datasets/airborne_drawn

writes `annotations/train.json` (COCO-VID) and `frames/<class>_NNN/NNNNNN.jpg` under the output folder. A video is one
object, with `--poses` in several poses, sizes and skies, of which `DATALOADER.TRAIN_FRAME_STRIDE` may leave some out.
The same options give the same pictures with the same OpenCV and NumPy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import script_end
from airborne_pictures import HEIGHT, NOTHING_HALF_WRITTEN, WIDTH, Picture, write_set
from airborne_shapes import SHAPES, any_size, draw
from eventful_vitdet.cli.arguments import whole_number
from tqdm import tqdm


def pose(category: int, number: int, frame: int, seed: int) -> Picture:
    """A frame of an object, which looks the same in all of its frames."""
    shape = list(SHAPES.values())[category](np.random.default_rng((seed, category, number)))
    rng = np.random.default_rng((seed, category, number, frame + 1))
    return draw(shape, rng, HEIGHT, WIDTH, any_size(rng))


def objects(count: int, poses: int, seed: int) -> Iterator[tuple[int, str, Iterator[Picture]]]:
    """Class, name and frames of so many objects of each class."""
    for category, name in enumerate(tqdm(SHAPES, desc="rendering", unit="class")):
        for number in range(count):
            frames = (pose(category, number, frame, seed) for frame in range(poses))
            yield category, f"{name}_{number:03d}", frames


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Render stills of airborne objects for training.")
    parser.add_argument("--output", type=Path, required=True, help="the data set's folder: datasets/airborne_drawn")
    parser.add_argument("--objects", type=whole_number(1), default=160, help="objects of each class (default: 160)")
    parser.add_argument("--poses", type=whole_number(1), default=1, help="frames of each object (default: 1)")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="default: 0")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    return script_end.run(lambda: render(options), (OSError,), NOTHING_HALF_WRITTEN)


def render(options: argparse.Namespace) -> None:
    drawn = objects(options.objects, options.poses, options.seed)
    try:
        frames = write_set(options.output, "drawn airborne objects", drawn)
    except OSError as error:
        raise OSError(f"cannot write to --output {options.output}: {error}") from error
    print(f"{options.output}: {frames} frames of {options.objects * len(SHAPES)} objects")


if __name__ == "__main__":
    sys.exit(main())
