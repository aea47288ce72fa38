"""Render stills of aircraft from three-dimensional models, in skies: more kinds of aircraft to train on.

    python datasets/render_airborne_models.py --airplanes FILE.ac ... --helicopters FILE.ac ... \\
        --output datasets/airborne_models

The models are AC3D files, as FlightGear's aircraft have them. Writes `annotations/train.json` (COCO-VID) and
`frames/<class>_NNNNN_P/000000.jpg`: each pose of a model is a video of one frame. The same files and options give the
same pictures with the same OpenCV and NumPy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial

import numpy as np
import script_end
from airborne_labels import CLASSES
from airborne_models import Model, ModelFileError, read_model, shape_of
from airborne_pictures import HEIGHT, NOTHING_HALF_WRITTEN, WIDTH, Picture, parse_sources, write_set
from airborne_shapes import any_size, draw
from eventful_vitdet.data.parallel_map import map_in_processes
from eventful_vitdet.errors import DataError
from tqdm import tqdm


def pose(task: tuple[int, int, int, Model], seed: int) -> tuple[int, str, list[Picture]]:
    """Class, name and frame of one pose: class, number of the model in it, number of the pose, and the model."""
    category, number, frame, model = task
    rng = np.random.default_rng((seed, category, number, frame))
    shape = shape_of(model, rng, rotor=CLASSES[category] == "helicopter")
    return category, f"{CLASSES[category]}_{number:05d}_{frame}", [draw(shape, rng, HEIGHT, WIDTH, any_size(rng))]


def objects(models: Sequence[Sequence[Model]], poses: int, seed: int) -> Iterator[tuple[int, str, list[Picture]]]:
    """Class, name and frame of each pose of the models of each class."""
    tasks = [
        (category, number, frame, model)
        for category, of_class in enumerate(models)
        for number, model in enumerate(of_class)
        for frame in range(poses)
    ]
    with closing(map_in_processes(partial(pose, seed=seed), tasks)) as drawn:
        yield from tqdm(drawn, desc="rendering", unit="frame", total=len(tasks))


def main(arguments: list[str] | None = None) -> int:
    description = "Render stills of aircraft from models for training."
    options = parse_sources(arguments, description, "datasets/airborne_models", 40, "FILE", "AC3D models of {}s")
    return script_end.run(lambda: render(options), (OSError, ModelFileError, DataError), NOTHING_HALF_WRITTEN)


def render(options: argparse.Namespace) -> None:
    models = [[read_model(path) for path in paths] for paths in options.sources]
    drawn = objects(models, options.poses, options.seed)
    frames = write_set(options.output, "airborne objects from models", drawn)
    print(f"{options.output}: {frames} frames of {sum(map(len, models))} models")


if __name__ == "__main__":
    sys.exit(main())
