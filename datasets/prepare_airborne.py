#!/usr/bin/env python3
"""Make airborne_vid and airborne_ir from a copy of their source.

    git clone https://github.com/DroneDetectionThesis/Drone-detection-dataset source
    pip install mat-io
    python datasets/prepare_airborne.py source --output datasets

writes datasets/airborne_vid and datasets/airborne_ir: COCO-VID files, and unmodified copies of the videos. Which clip
is in which split stands in datasets/airborne_splits.json. What exists is kept; --force writes the COCO-VID files again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import script_end
from airborne_labels import CLASSES, LabelledBox, read_labels
from eventful_vitdet.errors import UserError
from eventful_vitdet.files import open_atomically, write_atomically
from eventful_vitdet.video import probe_video
from tqdm import tqdm

SPLITS = Path(__file__).with_name("airborne_splits.json")
FPS = 30.0
CITATION = (
    "F. Svanstrom, F. Alonso-Fernandez, C. Englund, A dataset for multi-sensor drone detection, "
    "Data in Brief 39 (2021) 107521"
)
LICENCE = {"id": 1, "name": "CC0 1.0 Universal", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}


@dataclass(frozen=True)
class Camera:
    """One of the two data sets: its folder in the source, how its clips' names begin, and what its name says."""

    folder: str
    prefix: str
    kind: str


CAMERAS = {
    "airborne_vid": Camera("Data/Video_V", "V", "visible-light"),
    "airborne_ir": Camera("Data/Video_IR", "IR", "infrared"),
}
ONE_OBJECT = {("airborne_vid", "train"), ("airborne_vid", "val")}
"""Splits whose clips show one object throughout; a frame of theirs with several boxes is taken to have none."""


@dataclass(frozen=True)
class Clip:
    """A video of the source with its labels."""

    name: str
    video: Path
    labels: Path


def clips_of(source: Path, camera: Camera, numbers: dict[str, list[int]]) -> list[Clip]:
    """The clips of a split, ordered by name. Raises ValueError where any of their files is absent."""
    names = sorted(f"{camera.prefix}_{label.upper()}_{n:03d}" for label, of_label in numbers.items() for n in of_label)
    folder = source / camera.folder
    clips = [Clip(name, folder / f"{name}.mp4", folder / f"{name}_LABELS.mat") for name in names]
    absent = [path for clip in clips for path in (clip.video, clip.labels) if not path.is_file()]
    if absent:
        raise ValueError(
            f"{absent[0]}: does not exist (nor do {len(absent) - 1} other files); "
            f"give the folder that holds {camera.folder}"
        )
    return clips


def make_document(clips: list[Clip], data_set: str, split: str) -> dict:
    """The COCO-VID document of a split."""
    document: dict = {
        "info": {
            "description": f"Airborne objects in {CAMERAS[data_set].kind} video: {', '.join(CLASSES)}; {split} split",
            "source": "Drone-detection-dataset (Svanstrom, Englund, Alonso-Fernandez)",
            "citation": CITATION,
        },
        "licenses": [LICENCE],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES, start=1)],
        "videos": [],
        "images": [],
        "annotations": [],
    }
    objects = 0
    for clip in tqdm(clips, desc=f"{data_set}, {split}", unit="clip", mininterval=1.0):
        info = probe_video(str(clip.video))
        labels = read_labels(clip.labels, info.width, info.height)
        if abs(len(labels) - info.num_frames) > 1:
            raise ValueError(f"{clip.labels}: labels {len(labels)} frames, but the video has {info.num_frames}")
        labels = (labels + [[]])[: info.num_frames]
        objects = add_clip(document, clip.name, (info.width, info.height), labels, objects, (data_set, split))
    return document


def add_clip(
    document: dict, name: str, size: tuple[int, int], labels: list[list[LabelledBox]], objects: int, of: tuple[str, str]
) -> int:
    """Add a clip whose objects are numbered from `objects` + 1; returns the number of the last one."""
    from airborne_tracks import link_boxes  # needs SciPy, which mat-io brings

    if of in ONE_OBJECT:
        labels = [boxes if len(boxes) == 1 else [] for boxes in labels]
        numbers = [[0] * len(boxes) for boxes in labels]
    else:
        numbers = link_boxes(labels)
    width, height = size
    video = len(document["videos"]) + 1
    document["videos"].append(
        {"id": video, "name": name, "file_name": f"videos/{name}.mp4", "width": width, "height": height, "fps": FPS,
         "num_frames": len(labels)}
    )  # fmt: skip
    for frame, (boxes, of_frame) in enumerate(zip(labels, numbers)):
        image = len(document["images"]) + 1
        document["images"].append(
            {"id": image, "video_id": video, "frame_id": frame, "width": width, "height": height}
        )
        for (label, box), number in zip(boxes, of_frame):
            document["annotations"].append(
                {"id": len(document["annotations"]) + 1, "image_id": image, "video_id": video,
                 "category_id": CLASSES.index(label) + 1, "instance_id": objects + 1 + number, "bbox": list(box),
                 "area": round(box[2] * box[3], 2), "iscrowd": 0}
            )  # fmt: skip
    return objects + 1 + max((number for of_frame in numbers for number in of_frame), default=-1)


def copy_videos(clips: list[Clip], folder: Path) -> None:
    """Copy the videos that are not there, or there with another size; none is ever there in part."""
    for clip in clips:
        target = folder / clip.video.name
        if not target.is_file() or target.stat().st_size != clip.video.stat().st_size:
            with clip.video.open("rb") as source, open_atomically(str(target)) as copy:
                shutil.copyfileobj(source, copy)


def prepare(source: Path, output: Path, data_sets: list[str], force: bool) -> Iterator[str]:
    """Make the data sets; yields a line about every split."""
    splits = json.loads(SPLITS.read_text())
    plan = [
        (data_set, split, clips_of(source, CAMERAS[data_set], numbers))
        for data_set in data_sets
        for split, numbers in splits[data_set].items()
    ]
    for data_set, split, clips in plan:
        annotations = output / data_set / "annotations" / f"{split}.json"
        if annotations.is_file() and not force:
            copy_videos(clips, output / data_set / "videos")
            yield f"{annotations}: exists, kept (--force writes it again)"
            continue
        document = make_document(clips, data_set, split)  # first, as it finds files that cannot be read
        copy_videos(clips, output / data_set / "videos")
        write_atomically(str(annotations), json.dumps(document))
        counts = ", ".join(f"{len(document[key])} {key}" for key in ("videos", "images", "annotations"))
        yield f"{annotations}: {counts}"


def main(arguments: argparse.Namespace) -> None:
    try:
        import matio  # noqa: F401
    except ImportError:
        raise ValueError(
            "the source's labels are MATLAB objects, which mat-io reads: pip install mat-io (Python 3.11 or later)"
        ) from None
    for line in prepare(arguments.source, arguments.output, arguments.only or list(CAMERAS), arguments.force):
        print(line)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of the Drone-detection-dataset")
    parser.add_argument("--output", type=Path, default=Path(os.environ.get("DETECTRON2_DATASETS", "datasets")),
                        help="folder of all data sets (default: DETECTRON2_DATASETS, or datasets)")  # fmt: skip
    parser.add_argument("--only", nargs="+", choices=list(CAMERAS), help="make these only")
    parser.add_argument("--force", action="store_true", help="write COCO-VID files that exist again")
    arguments = parser.parse_args()
    kept = "interrupted; videos that were copied are kept"
    sys.exit(script_end.run(lambda: main(arguments), (OSError, ValueError, UserError), kept))
