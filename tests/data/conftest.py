"""Tiny videos and annotation files, made on the fly."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

WIDTH, HEIGHT = 64, 48
GREY_STEP = 8


def grey_frame(index: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A uniform frame whose grey level tells its number; 8 levels apart survive any codec."""
    return np.full((height, width, 3), 10 + GREY_STEP * index, np.uint8)


def frame_number(image: np.ndarray) -> int:
    """Read the number of a grey frame back."""
    return round((float(np.mean(image)) - 10) / GREY_STEP)


def write_video(path: Path, images: list[np.ndarray], codec: str = "MJPG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 30, (width, height))
    assert writer.isOpened()
    for image in images:
        writer.write(image)
    writer.release()
    return path


def make_frame(path, frame_id: int, *, is_video_file: bool = True) -> dict:
    """A frame as data sets list it."""
    return {
        "file_name": str(path),
        "frame_id": frame_id,
        "video_id": 1,
        "is_video_file": is_video_file,
        "height": HEIGHT,
        "width": WIDTH,
    }


def make_document(frame_ids: dict[int, list[int]], file_name: str = "videos/{}.avi") -> dict:
    """A COCO-VID document with one box per frame: x = 1 + the frame's number, y = 2, 10 x 8 pixels."""
    document = {
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "videos": [
            {"id": v, "name": str(v), "file_name": file_name.format(v), "width": WIDTH, "height": HEIGHT}
            for v in frame_ids
        ],
        "images": [],
        "annotations": [],
    }
    for video, numbers in frame_ids.items():
        for number in numbers:
            image = 100 * video + number
            document["images"].append({"id": image, "video_id": video, "frame_id": number})
            document["annotations"].append(
                {
                    "id": image,
                    "image_id": image,
                    "video_id": video,
                    "category_id": 3 if video % 2 else 7,
                    "instance_id": 5,
                    "bbox": [1 + number, 2, 10, 8],
                    "area": 80,
                    "iscrowd": 0,
                }
            )
    return document


@pytest.fixture
def write_dataset(tmp_path):
    """
    Writes videos of `length` frames for every video of a document, and the JSON; returns (json file, root).
    """

    def write(document: dict, length: int = 12) -> tuple[str, str]:
        for video in document["videos"]:
            write_video(tmp_path / video["file_name"], [grey_frame(i) for i in range(length)])
        path = tmp_path / "annotations" / "set.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(document))
        return str(path), str(tmp_path)

    return write
