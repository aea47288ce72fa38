"""Data sets that other code registered in Detectron2's catalog: frame dicts brought to the form that ours have."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from numbers import Integral

from detectron2.structures import BoxMode

from ..errors import DatasetError
from .annotation_file import check_area, check_flag, is_plain_text, quote, read_whole
from .coco_vid import group_by_video, regular_step

NEEDED = ("file_name", "image_id", "height", "width")
BOX_MODES = (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)


def complete_frames(name: str, entries: Sequence[Mapping], num_classes: int | None = None) -> list[dict]:
    """The dicts of a data set, with what Detectron2 does not know of: frames of videos, in order, with their step.

    An image without `video_id` is a video of one frame. One with `video_id` needs `frame_id`; a file that several
    frames of a video share is a video file. What is there already is kept, as are all other keys.
    Raises DatasetError, naming the entry, for what is missing or is no number, and for annotations that cannot be
    compared with detections: of another class than the `num_classes` (None: any), or with a box that is none.
    """
    frames = [_complete(f"data set '{name}': entry {i}", entry, num_classes) for i, entry in enumerate(entries)]
    files = Counter((frame["video_id"], frame["file_name"]) for frame in frames)
    ordered = []
    for video in group_by_video(frames):
        video.sort(key=lambda frame: frame["frame_id"])
        numbers = [frame["frame_id"] for frame in video]
        if len(set(numbers)) < len(numbers):
            twice = next(a for a, b in zip(numbers, numbers[1:]) if a == b)
            raise DatasetError(f"data set '{name}': frame_id {twice} of video {video[0]['video_id']} is listed twice")
        step = regular_step(numbers)
        for frame in video:
            frame.setdefault("is_video_file", files[frame["video_id"], frame["file_name"]] > 1)
            frame.setdefault("frame_step", step)
        ordered += video
    return ordered


def _complete(where: str, entry: Mapping, num_classes: int | None) -> dict:
    for key in NEEDED:
        if key not in entry:
            raise DatasetError(f"{where} has no '{key}'; a frame needs {', '.join(NEEDED)}")
    frame = {"annotations": [], **entry}
    for key in ("image_id", "height", "width"):
        frame[key] = read_whole(where, frame, key)
    if min(frame["height"], frame["width"]) < 1:
        raise DatasetError(f"{where} has the size {frame['width']} x {frame['height']}; expected positive numbers")
    if not isinstance(frame["annotations"], (list, tuple)):
        raise DatasetError(f"{where} has annotations {quote(frame['annotations'])}; expected a list")
    for i, annotation in enumerate(frame["annotations"]):
        _check_annotation(f"{where}, annotations[{i}]", annotation, num_classes)
    if "video_id" not in frame:
        return {**frame, "video_id": f"image {frame['image_id']}", "frame_id": 0, "is_video_file": False}
    if "frame_id" not in frame:
        raise DatasetError(f"{where} has a 'video_id' but no 'frame_id', so that frames cannot be put in order")
    if not isinstance(frame["video_id"], str):
        frame["video_id"] = read_whole(where, frame, "video_id")
    elif not is_plain_text(frame["video_id"]):
        raise DatasetError(f"{where} has video_id {quote(frame['video_id'])}; expected a number or printable text")
    frame["frame_id"] = read_whole(where, frame, "frame_id")
    return frame


def _check_annotation(where: str, annotation: Mapping, num_classes: int | None) -> None:
    """Raise DatasetError for what would end an evaluation behind its last frame, or spoil its numbers in silence."""
    if not isinstance(annotation, Mapping):
        raise DatasetError(f"{where} is {quote(annotation)}; expected a dict")
    label = annotation.get("category_id")
    if not isinstance(label, Integral) or label < 0 or (num_classes is not None and label >= num_classes):
        classes = "0 or larger" if num_classes is None else f"from 0 to {num_classes - 1}"
        raise DatasetError(f"{where} has category_id {quote(label)}; expected a whole number {classes}")
    if annotation.get("bbox_mode") not in BOX_MODES:
        mode = quote(annotation.get("bbox_mode"))
        raise DatasetError(f"{where} has bbox_mode {mode}; expected BoxMode.XYXY_ABS or BoxMode.XYWH_ABS")
    if not _is_box(annotation.get("bbox"), annotation["bbox_mode"]):
        raise DatasetError(
            f"{where} has bbox {quote(annotation.get('bbox'))}; expected four finite numbers, with no side below 0"
        )
    check_flag(where, annotation, "iscrowd")
    check_area(where, annotation)
    if not isinstance(annotation.get("instance_id"), (Integral, str, type(None))):
        raise DatasetError(f"{where} has instance_id {quote(annotation['instance_id'])}; expected an int or text")


def _is_box(box: object, mode: BoxMode) -> bool:
    """Whether a value, a list or an array, is a box; as in COCO's own files, it may be empty."""
    try:
        values = [float(value) for value in box]
    except (TypeError, ValueError):
        return False
    if len(values) != 4 or not all(map(math.isfinite, values)):
        return False
    x0, y0, x1, y1 = BoxMode.convert(values, mode, BoxMode.XYXY_ABS)
    return x1 >= x0 and y1 >= y0
