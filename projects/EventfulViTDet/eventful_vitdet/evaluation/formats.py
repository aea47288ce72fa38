"""Detections in the formats that other programs read, written piece by piece."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO

import numpy as np

from ..data.coco_vid import Video
from ..files import open_atomically
from .coco_metrics import BOXES, coco_entries
from .detection_table import DetectionTable
from .tubes import Tube

DETECTIONS_FILE = "coco_instances_results.json"
SUBMISSION_FILE = "vid_submission.txt"
TUBES_FILE = "youtube_vis_results.json"

ROWS_AT_ONCE = 1 << 14


def write_coco_detections(path: str, detections: DetectionTable, category_ids: Sequence[int]) -> None:
    """Write a COCO results file: a list of image_id, category_id, bbox [x, y, width, height], score and, of those that
    have a mask, segmentation."""
    with open_atomically(path) as file:
        file.write(b"[")
        separator = ""
        for part in _parts(detections):
            lines = ",\n".join(json.dumps(entry, allow_nan=False) for entry in coco_entries(part, category_ids))
            _write(file, separator + lines)
            separator = ",\n"
        file.write(b"]\n")


def write_vid_submission(path: str, detections: DetectionTable, frame_numbers: Mapping[int, int]) -> None:
    """Write what ImageNet VID's evaluation kit reads: a line per detection with the frame's number, the class (from 1),
    the score, and xmin ymin xmax ymax in pixels.

    `frame_numbers` gives the number of a frame, from 1 in the order of the data set's list, by its image_id.
    """
    with open_atomically(path) as file:
        for part in _parts(detections):
            numbers = [frame_numbers[image_id] for image_id in part.image_ids.tolist()]
            rows = zip(numbers, (part.classes + 1).tolist(), part.scores.tolist(), part.boxes.tolist())
            # Nine digits tell any two scores apart, so their order is kept.
            lines = (f"{n} {c} {s:.9g} {' '.join(f'{v:.2f}' for v in box)}\n" for n, c, s, box in rows)
            _write(file, "".join(lines))


def write_tubes(path: str, tubes: Iterable[Tube], videos: Sequence[Video], category_ids: Sequence[int]) -> None:
    """Write what YouTube-VIS' server reads: a list of video_id, category_id, score and, with an entry or null for each
    frame, segmentations (run lengths). Tubes without masks have bboxes [x, y, width, height] in their place."""
    with open_atomically(path) as file:
        file.write(b"[")
        for number, tube in enumerate(tubes):
            key, regions = ("segmentations", tube.masks) if tube.masks else ("bboxes", tube.regions(BOXES).tolist())
            frames: list = [None] * len(videos[tube.video])
            for position, region in zip(tube.frames.tolist(), regions):
                frames[position] = region
            video_id, category_id = videos[tube.video][0]["video_id"], category_ids[tube.label]
            entry = {"video_id": video_id, "category_id": category_id, "score": tube.score, key: frames}
            _write(file, (",\n" if number else "") + json.dumps(entry, allow_nan=False))
        file.write(b"]\n")


def _parts(table: DetectionTable) -> Iterator[DetectionTable]:
    for start in range(0, len(table), ROWS_AT_ONCE):
        yield table.select(np.arange(start, min(start + ROWS_AT_ONCE, len(table))))


def _write(file: IO[bytes], text: str) -> None:
    file.write(text.encode("utf-8"))
