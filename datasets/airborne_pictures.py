"""Stills of an airborne object in a sky, and data sets of them."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from airborne_labels import CLASSES
from eventful_vitdet.cli.arguments import whole_number
from eventful_vitdet.files import write_atomically

OPTIONS = ("--airplanes", "--birds", "--drones", "--helicopters")
"""Where objects of each of CLASSES come from."""
HEIGHT, WIDTH = 512, 640
JPEG_QUALITY = 92
NOTHING_HALF_WRITTEN = "interrupted: nothing is left half-written; run it again"
"""What the scripts say that write a set of pictures."""


@dataclass(frozen=True)
class Picture:
    """A frame and its object's box."""

    image: np.ndarray
    """(H, W, 3), uint8, BGR."""
    box: tuple[float, float, float, float]
    """x, y, width, height in pixels, as loose as people draw them."""


def sky(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width, 3), float32, BGR: blue to grey, lighter towards one side, often with clouds."""
    grey = rng.uniform(90, 230)
    blue = rng.uniform(0, 1) ** 1.5
    base = grey * np.asarray((1, 1 - 0.3 * blue, 1 - 0.6 * blue))
    slope = np.linspace(-1, 1, height)[:, None] * rng.normal(0, 12) + np.linspace(-1, 1, width) * rng.normal(0, 6)
    image = (base + slope[..., None]).astype(np.float32)
    if rng.random() < 0.35:
        image += _clouds(rng, height, width)[..., None] * rng.uniform(5, 45) * np.asarray((0.9, 1, 1), np.float32)
    return image


def _clouds(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width), float32, about -1 to 1: noise of several sizes."""
    total = np.zeros((height, width), np.float32)
    for cells in (2, 4, 8, 16):
        noise = rng.normal(0, 1 / cells**0.7, (cells + 1, cells + 1)).astype(np.float32)
        total += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(total, -1, 1)


def finish(image: np.ndarray, x: int, y: int, opacity: np.ndarray, least: float, rng: np.random.Generator) -> Picture:
    """A picture blurred and compressed as videos of far objects are.

    Args:
        image: (H, W, 3), float32, with an object whose opacity, (h, w), lies at (x, y).
        least: opacity from which on a pixel belongs to the object.
    """
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.1)) + rng.normal(0, rng.uniform(0.5, 3), image.shape)
    image = np.clip(image, 0, 255).astype(np.uint8)
    quality = int(rng.integers(35, 90))
    image = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    rows, columns = np.nonzero(opacity > least)
    box = (x + columns.min(), y + rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
    return Picture(image, _loosen(box, rng, *image.shape[:2]))


def _loosen(box: tuple, rng: np.random.Generator, height: int, width: int) -> tuple[float, float, float, float]:
    left, top, right, bottom = (rng.uniform(0.03, 0.15) * max(box[2:]) + rng.uniform(3, 8) for _ in range(4))
    x0, y0 = max(0.0, box[0] - left), max(0.0, box[1] - top)
    x1, y1 = min(float(width), box[0] + box[2] + right), min(float(height), box[1] + box[3] + bottom)
    return (round(x0, 2), round(y0, 2), round(x1 - x0, 2), round(y1 - y0, 2))


def parse_sources(
    arguments: list[str] | None, description: str, output: str, poses: int, metavar: str, text: str
) -> argparse.Namespace:
    """The options of a script that makes pictures of files of each class: `sources`, output, poses and seed.

    Ends the program where no class has files.

    Args:
        output: the folder that the help names.
        poses: frames of each object, if the user does not say.
        text: explains the option of a class, which is {}.

    Returns:
        `sources` are lists of paths, one for each of CLASSES.
    """
    parser = argparse.ArgumentParser(description=description)
    for name, option in zip(CLASSES, OPTIONS):
        help = text.format(name)
        parser.add_argument(option, dest=name, type=Path, nargs="+", default=[], metavar=metavar, help=help)
    parser.add_argument("--output", type=Path, required=True, help=f"the data set's folder: {output}")
    help = "frames of each object (default: %(default)s)"
    parser.add_argument("--poses", type=whole_number(1), default=poses, help=help)
    parser.add_argument("--seed", type=whole_number(0), default=0, help="default: 0")
    options = parser.parse_args(arguments)
    options.sources = [getattr(options, name) for name in CLASSES]
    if not any(options.sources):
        parser.error("one of the arguments " + " ".join(OPTIONS) + " is required")
    return options


def write_set(output: Path, description: str, objects: Iterable[tuple[int, str, Iterable[Picture]]]) -> int:
    """Write a data set; returns the number of its frames.

    It takes the place of an earlier one of that description when all its frames are there. The annotation file comes
    last, so that one that exists belongs to its frames.

    Args:
        output: its folder.
        objects: number of the class, from 0; name of the video; its frames.

    Raises FileExistsError where another data set is in the folder.
    """
    annotation_file, frames = output / "annotations" / "train.json", output / "frames"
    _refuse_others(annotation_file, frames, description)
    annotation_file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".rendering_", dir=output) as scratch:
        document = _write_frames(Path(scratch, "frames"), description, objects)
        annotation_file.unlink(missing_ok=True)
        shutil.rmtree(frames, ignore_errors=True)
        os.replace(Path(scratch, "frames"), frames)
        write_atomically(str(annotation_file), json.dumps(document) + "\n")
    return len(document["images"])


def _refuse_others(annotation_file: Path, frames: Path, description: str) -> None:
    """Raise FileExistsError for files that are not those of an earlier data set of this description."""
    try:
        known = json.loads(annotation_file.read_text(encoding="utf-8"))["info"]["description"] == description
    except FileNotFoundError:
        known = not frames.exists()
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        found = annotation_file if annotation_file.exists() else frames
        raise FileExistsError(f"{found} was not written by this script: choose another --output, or delete it")


def _write_frames(folder: Path, description: str, objects: Iterable[tuple[int, str, Iterable[Picture]]]) -> dict:
    """Write the frames below `folder`; returns the COCO-VID document."""
    size = {"width": WIDTH, "height": HEIGHT}
    videos, images, annotations = [], [], []
    folder.mkdir()
    for category, video, pictures in objects:
        videos.append({"id": len(videos) + 1, "name": video, **size})
        (folder / video).mkdir()
        for frame, picture in enumerate(pictures):
            path = f"{video}/{frame:06d}.jpg"
            if not cv2.imwrite(str(folder / path), picture.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]):
                raise OSError(f"{folder / path} could not be written")
            ids = {"id": len(images) + 1, "video_id": len(videos), "frame_id": frame}
            images.append({**ids, "file_name": f"frames/{path}", **size})
            annotation = {"id": len(images), "image_id": len(images), "video_id": len(videos), "instance_id": 1}
            area = picture.box[2] * picture.box[3]
            annotations.append(
                {**annotation, "category_id": category + 1, "bbox": picture.box, "area": area, "iscrowd": 0}
            )
    return {
        "info": {"description": description},
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)],
        "videos": videos,
        "images": images,
        "annotations": annotations,
    }
