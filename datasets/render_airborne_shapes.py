"""Render stills of airplanes, birds, drones and helicopters in skies, from simple solids: more shapes to train on.

    python datasets/render_airborne_shapes.py --output datasets/airborne_drawn

writes `annotations/train.json` (COCO-VID) and `frames/<class>_NNN/NNNNNN.jpg` under the output folder. A video is one
object, with `--poses` in several poses, sizes and skies, of which `DATALOADER.TRAIN_FRAME_STRIDE` may leave some out.
The same options give the same pictures with the same OpenCV and NumPy.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from airborne_shapes import SHAPES, Picture, draw
from eventful_vitdet.cli.arguments import whole_number
from tqdm import tqdm

HEIGHT, WIDTH = 512, 640
LONGEST = (12, 180)
"""Range of an object's longer side in pixels; small ones are more frequent."""
JPEG_QUALITY = 92


def pose(category: int, number: int, frame: int, seed: int) -> Picture:
    """A frame of an object, which looks the same in all of its frames."""
    shape = list(SHAPES.values())[category](np.random.default_rng((seed, category, number)))
    rng = np.random.default_rng((seed, category, number, frame + 1))
    longest = float(np.exp(rng.uniform(*np.log(LONGEST))))
    return draw(shape, rng, HEIGHT, WIDTH, longest)


def render(folder: Path, objects: int, poses: int, seed: int) -> dict:
    """Write the frames of `objects` of each class below `folder`; returns the COCO-VID document."""
    size = {"width": WIDTH, "height": HEIGHT}
    videos, images, annotations = [], [], []
    for category, name in enumerate(tqdm(SHAPES, desc="rendering", unit="class")):
        for number in range(objects):
            video = f"{name}_{number:03d}"
            videos.append({"id": len(videos) + 1, "name": video, **size})
            (folder / video).mkdir(parents=True)
            for frame in range(poses):
                picture = pose(category, number, frame, seed)
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
        "info": {"description": "drawn airborne objects"},
        "categories": [{"id": number, "name": name} for number, name in enumerate(SHAPES, 1)],
        "videos": videos,
        "images": images,
        "annotations": annotations,
    }


def write_set(output: Path, objects: int, poses: int, seed: int) -> None:
    """Render the data set; the annotation file comes last, so that one that exists belongs to its frames."""
    annotation_file, frames = output / "annotations" / "train.json", output / "frames"
    annotation_file.parent.mkdir(parents=True, exist_ok=True)
    annotation_file.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix=".rendering_", dir=output) as scratch:
        document = render(Path(scratch, "frames"), objects, poses, seed)
        shutil.rmtree(frames, ignore_errors=True)
        os.replace(Path(scratch, "frames"), frames)
        unfinished = Path(scratch, annotation_file.name)
        unfinished.write_text(json.dumps(document) + "\n", encoding="utf-8")
        os.replace(unfinished, annotation_file)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Render stills of airborne objects for training.")
    parser.add_argument("--output", type=Path, required=True, help="the data set's folder: datasets/airborne_drawn")
    parser.add_argument("--objects", type=whole_number(1), default=160, help="objects of each class (default: 160)")
    parser.add_argument("--poses", type=whole_number(1), default=1, help="frames of each object (default: 1)")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="default: 0")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    try:
        write_set(options.output, options.objects, options.poses, options.seed)
    except OSError as error:
        print(f"error: cannot write to --output {options.output}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing is left half-written; run it again", file=sys.stderr)
        return 130
    count = options.objects * options.poses * len(SHAPES)
    print(f"{options.output}: {count} frames of {options.objects * len(SHAPES)} objects")
    return 0


if __name__ == "__main__":
    sys.exit(main())
