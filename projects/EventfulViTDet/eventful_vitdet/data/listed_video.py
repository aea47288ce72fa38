"""The listed frames of one video of a data set as a source, for what runs on sources."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ..structures import SourceFrame
from ..video import VideoSource, iterate_frames, probe_video
from ..video.source import DEFAULT_FPS
from .coco_vid import Video


class ListedVideo(VideoSource):
    """Plays exactly the frames that the data set lists, at the rate that their step leaves."""

    def __init__(self, frames: Video) -> None:
        """Raises VideoReadError for a video file that cannot be opened."""
        first = frames[0]
        path, is_file = first["file_name"], first["is_video_file"]
        self._listed = frames
        self.name = path if is_file else os.path.dirname(path)
        self.fps = (probe_video(path).fps if is_file else 0.0) or DEFAULT_FPS
        self.fps /= first["frame_step"]
        self.num_frames = len(frames)
        self.paths = list(dict.fromkeys(frame["file_name"] for frame in frames))

    def frames(self, start: int = 0) -> Iterator[SourceFrame]:
        for index, (frame, image) in enumerate(iterate_frames(self._listed[start:]), start):
            yield SourceFrame(index, 0, index / self.fps, image, frame["file_name"])
