"""The frames before a training frame, for training with gates on: the clip whose last frame it is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .coco_vid import split_sequences

EARLIER = "earlier"


def attach_earlier(frames: Iterable[dict], count: int) -> list[dict]:
    """Frame dicts with `count` frames before each, oldest first and without annotations, under EARLIER.

    A sequence stands still before its first frame, and so does a still: that frame takes the place of those that are
    missing. Sequences end where frame numbers have a gap.
    """
    attached = []
    for sequence in split_sequences(frames):
        plain = [{key: value for key, value in frame.items() if key != "annotations"} for frame in sequence]
        for i, frame in enumerate(sequence):
            attached.append({**frame, EARLIER: [plain[max(0, i - back)] for back in range(count, 0, -1)]})
    return attached


def all_frames(frames: Sequence[dict]) -> list[dict]:
    """Every frame that is read for some training frames, once, in the order of videos and frame numbers."""
    videos: dict[object, dict[int, dict]] = {}
    for frame in frames:
        of_video = videos.setdefault(frame["video_id"], {})
        for read in (*frame.get(EARLIER, ()), frame):
            of_video[read["frame_id"]] = read
    return [of_video[number] for of_video in videos.values() for number in sorted(of_video)]
