"""Render stills of objects that are cut out of photos, in skies: more objects to train on than a few clips show.

    python datasets/render_airborne_photos.py --airplanes FOLDER ... --birds FOLDER ... --drones FOLDER ... \\
        --output datasets/airborne_photos

Photos are searched for below the folders. Those with one object on an even background are used, such as airplanes in
the sky and drones on white paper; others are left out. Writes `annotations/train.json` (COCO-VID) and
`frames/<class>_NNNNN_P/000000.jpg`: each pose of an object is a video of one frame. The same photos and options give
the same pictures with the same OpenCV and NumPy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import script_end
from airborne_cutouts import Cutout, cut_out, place
from airborne_labels import CLASSES
from airborne_pictures import HEIGHT, NOTHING_HALF_WRITTEN, WIDTH, Picture, parse_sources, write_set
from eventful_vitdet.errors import DataError, VideoReadError
from eventful_vitdet.video.image_files import has_image_suffix, read_image_file
from tqdm import tqdm


def photos_below(folders: Sequence[Path]) -> list[Path]:
    """The photos of folders, in an order that does not depend on the file system.

    Raises FileNotFoundError.
    """
    for folder in folders:
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: there is no such folder")
    return [path for folder in folders for path in sorted(folder.rglob("*")) if has_image_suffix(str(path))]


def cutouts(photos: Sequence[Path], name: str) -> list[Cutout]:
    """The objects of photos that have one on an even background."""
    found = []
    for path in tqdm(photos, desc=f"{name}s", unit="photo"):
        try:
            photo = read_image_file(str(path))
        except VideoReadError:
            print(f"{path}: not a picture that can be read; left out", file=sys.stderr)
            continue
        cutout = cut_out(photo)
        if cutout is not None:
            found.append(cutout)
    return found


def objects(found: Sequence[Sequence[Cutout]], poses: int, seed: int) -> Iterator[tuple[int, str, list[Picture]]]:
    """Class, name and frame of each pose of the objects of each class."""
    total = poses * sum(map(len, found))
    with tqdm(total=total, desc="rendering", unit="frame") as bar:
        for category, of_class in enumerate(found):
            for number, cutout in enumerate(of_class):
                for frame in range(poses):
                    rng = np.random.default_rng((seed, category, number, frame))
                    name = f"{CLASSES[category]}_{number:05d}_{frame}"
                    yield category, name, [place(cutout, rng, HEIGHT, WIDTH)]
                    bar.update()


def main(arguments: list[str] | None = None) -> int:
    description = "Render stills of objects cut out of photos for training."
    options = parse_sources(
        arguments, description, "datasets/airborne_photos", 4, "FOLDER", "folders with photos of {}s"
    )
    return script_end.run(lambda: render(options), (OSError, DataError), NOTHING_HALF_WRITTEN)


def render(options: argparse.Namespace) -> None:
    photos = [photos_below(folders) for folders in options.sources]
    found = [cutouts(paths, name) for paths, name in zip(photos, CLASSES)]
    if not any(found):
        raise DataError("no photo has one object on an even background: nothing is written")
    drawn = objects(found, options.poses, options.seed)
    frames = write_set(options.output, "airborne objects cut out of photos", drawn)
    for name, paths, of_class in zip(CLASSES, photos, found):
        if paths:
            print(f"{name}s: {len(of_class)} of {len(paths)} photos have one object on an even background")
    print(f"{options.output}: {frames} frames of {sum(map(len, found))} objects")


if __name__ == "__main__":
    sys.exit(main())
