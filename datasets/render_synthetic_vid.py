"""Render the demo's video detection data set, two splits that share no random numbers.

    python datasets/render_synthetic_vid.py --output datasets/demo_vid --split train
    python datasets/render_synthetic_vid.py --output datasets/demo_vid --split test

writes `annotations/<split>.json` (COCO-VID) and `videos/<split>_NNN.mp4` under the output folder. The same
options give the same JSON bytes and the same frames on every machine with OpenCV 5 (some of OpenCV 4's shapes are a
pixel wider); only the video encoder may differ.
A split that is already there with the same options is left alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import script_end
from eventful_vitdet.video.connections import quiet_opencv
from synthetic_scene import CLASSES, DYNAMICS, FPS, Box, RenderError, Settings, render_video
from tqdm import tqdm

DEFAULTS = {"train": (360, 8), "test": (8, 40)}  # videos, frames per video
CODEC = "mp4v"  # MPEG-4 is in every OpenCV build, and one codec everywhere means one data set
INCOMPLETE = "interrupted: the split is incomplete; the same command renders it again"


def open_writer(path: Path, width: int, height: int) -> cv2.VideoWriter:
    """A writer of MP4 video of frames of a size in pixels."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # a missing codec would print a page of messages
    with quiet_opencv():
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*CODEC), FPS, (width, height))
    if not writer.isOpened():
        raise RenderError(f"OpenCV {cv2.__version__} could not open {path} for MP4 video ({CODEC})")
    return writer


def encode(path: Path, width: int, height: int, frames: int, images: Iterable[np.ndarray]) -> None:
    """Write images (height, width, 3), BGR, as MP4 video. Raises RenderError if not all `frames` were written."""
    writer = open_writer(path, width, height)
    try:
        for image in images:
            writer.write(image)
    finally:
        writer.release()
    reader = cv2.VideoCapture(str(path))  # the writer reports no errors: a full disk shows only here
    written = int(reader.get(cv2.CAP_PROP_FRAME_COUNT)) if reader.isOpened() else 0
    reader.release()
    if written != frames:
        raise RenderError(f"{path}: {written} of {frames} frames were written; is the disk full?")


def write_video(path: Path, settings: Settings, video: int) -> list[list[Box]]:
    """Render and encode one video; returns the boxes of every frame."""
    boxes = []

    def images() -> Iterator[np.ndarray]:
        for frame in render_video(settings, video):
            boxes.append(frame.boxes)
            yield frame.image

    encode(path, settings.width, settings.height, settings.frames, images())
    return boxes


def video_name(settings: Settings, video: int) -> str:
    return f"{settings.split}_{video:03d}"


def describe(settings: Settings, boxes: list[list[list[Box]]]) -> dict:
    """The COCO-VID document of a split from boxes[video][frame]. Ids count from 1, frames from 0."""
    size = {"width": settings.width, "height": settings.height}
    videos, images, annotations = [], [], []
    for video_id, frames in enumerate(boxes, 1):
        name = video_name(settings, video_id - 1)
        video = {"id": video_id, "name": name, "file_name": f"videos/{name}.mp4", **size}
        videos.append({**video, "fps": FPS, "num_frames": len(frames)})
        for frame_id, seen in enumerate(frames):
            images.append({"id": len(images) + 1, "video_id": video_id, "frame_id": frame_id, **size})
            for box in seen:
                annotation = {"id": len(annotations) + 1, "image_id": len(images), "video_id": video_id}
                annotation.update(category_id=box.category + 1, instance_id=box.instance, bbox=box.xywh)
                annotations.append({**annotation, "area": box.xywh[2] * box.xywh[3], "iscrowd": 0})
    return {
        "info": {"description": "synthetic shapes in motion", "rendered_with": settings.stamp()},
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, 1)],
        "videos": videos,
        "images": images,
        "annotations": annotations,
    }


def existing_stamp(annotation_file: Path) -> dict | None:
    """The settings that an annotation file was rendered with; None if there is no file."""
    if not annotation_file.exists():
        return None
    try:
        return json.loads(annotation_file.read_text(encoding="utf-8"))["info"]["rendered_with"]
    except (ValueError, KeyError, TypeError):
        message = f"{annotation_file} was not written by this script: choose another --output"
        raise RenderError(message) from None


def render_split(output: Path, settings: Settings, force: bool = False) -> bool:
    """Render a split into `output`; returns whether there was anything to do.

    The annotation file goes first and comes back last, so that one that exists always belongs to its videos.
    """
    annotation_file, video_folder = output / "annotations" / f"{settings.split}.json", output / "videos"
    names = [f"{video_name(settings, video)}.mp4" for video in range(settings.videos)]
    unchanged = existing_stamp(annotation_file) == settings.stamp()
    if unchanged and not force and all((video_folder / name).is_file() for name in names):
        return False
    annotation_file.parent.mkdir(parents=True, exist_ok=True)
    video_folder.mkdir(exist_ok=True)
    annotation_file.unlink(missing_ok=True)
    boxes = []
    with tempfile.TemporaryDirectory(prefix=".rendering_", dir=output) as scratch:
        for video, name in enumerate(tqdm(names, desc=f"rendering {settings.split}", unit="video")):
            seen = write_video(Path(scratch, name), settings, video)
            os.replace(Path(scratch, name), video_folder / name)
            boxes.append(seen)
        unfinished = Path(scratch, annotation_file.name)
        unfinished.write_text(json.dumps(describe(settings, boxes)) + "\n", encoding="utf-8")
        os.replace(unfinished, annotation_file)
    return True


def frame_size(text: str) -> tuple[int, int]:
    width, cross, height = text.partition("x")
    if not (cross and width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, for example 320x256")
    return int(width), int(height)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Render a small synthetic video data set.")
    parser.add_argument("--output", type=Path, required=True, help="the data set's folder: datasets/demo_vid")
    parser.add_argument("--split", choices=DEFAULTS, required=True, help="the two share no random numbers")
    parser.add_argument("--videos", type=int, help="number of videos (default: train 360, test 8)")
    parser.add_argument("--frames", type=int, help="frames per video (default: train 8, test 40)")
    parser.add_argument("--size", type=frame_size, default=(320, 256), metavar="WxH", help="320x256")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    motion = "still: little motion; moving: many objects move; panning: the camera too; mixed (default): all"
    parser.add_argument("--dynamics", choices=(*DYNAMICS, "mixed"), default="mixed", help=motion)
    parser.add_argument("--force", action="store_true", help="render again even if the split is complete")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse_arguments(arguments)
    return script_end.run(lambda: render(options), (RenderError, OSError), INCOMPLETE)


def render(options: argparse.Namespace) -> None:
    videos, frames = DEFAULTS[options.split]
    videos = videos if options.videos is None else options.videos
    frames = frames if options.frames is None else options.frames
    settings = Settings(options.split, videos, frames, *options.size, options.seed, options.dynamics)
    try:
        rendered = render_split(options.output, settings, options.force)
    except OSError as error:
        raise OSError(f"cannot write to --output {options.output}: {error}") from error
    state = "rendered" if rendered else "already complete (--force renders again)"
    print(f"{options.output}: {options.split}, {videos} videos of {frames} frames, {state}")


if __name__ == "__main__":
    sys.exit(main())
