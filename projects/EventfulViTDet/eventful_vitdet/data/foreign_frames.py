"""Data sets that other code registered in Detectron2's catalog: frame dicts brought to the form that ours have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ..errors import DatasetError
from .annotation_file import read_whole
from .coco_vid import group_by_video, regular_step

NEEDED = ("file_name", "image_id", "height", "width")


def complete_frames(name: str, entries: Sequence[Mapping]) -> list[dict]:
    """The dicts of a data set, with what Detectron2 does not know of: frames of videos, in order, with their step.

    An image without `video_id` is a video of one frame. One with `video_id` needs `frame_id`; a file that several
    frames of a video share is a video file. What is there already is kept, as are all other keys.
    Raises DatasetError, naming the entry, for what is missing or is no number.
    """
    frames = [_complete(f"data set '{name}': entry {i}", entry) for i, entry in enumerate(entries)]
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


def _complete(where: str, entry: Mapping) -> dict:
    for key in NEEDED:
        if key not in entry:
            raise DatasetError(f"{where} has no '{key}'; a frame needs {', '.join(NEEDED)}")
    frame = {"annotations": [], **entry}
    for key in ("image_id", "height", "width"):
        frame[key] = read_whole(where, frame, key)
    if "video_id" not in frame:
        return {**frame, "video_id": f"image {frame['image_id']}", "frame_id": 0, "is_video_file": False}
    if "frame_id" not in frame:
        raise DatasetError(f"{where} has a 'video_id' but no 'frame_id', so that frames cannot be put in order")
    if not isinstance(frame["video_id"], str):
        frame["video_id"] = read_whole(where, frame, "video_id")
    frame["frame_id"] = read_whole(where, frame, "frame_id")
    return frame
