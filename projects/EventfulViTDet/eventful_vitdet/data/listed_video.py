"""The listed frames of one video of a data set as a source, for what runs on sources."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from ..structures import SourceFrame
from ..video import VideoFile, VideoSource
from ..video.source import DEFAULT_FPS
from .coco_vid import Video
from .listed_frames import iterate_listed_frames


class ListedVideo(VideoSource):
    """Plays exactly the frames that the data set lists, numbered from 0, with the times that their file gives them."""

    def __init__(self, frames: Video) -> None:
        """Raises VideoReadError for a video file that cannot be opened."""
        first = frames[0]
        path, is_file = first["file_name"], first["is_video_file"]
        self._listed = frames
        self._file = VideoFile(path) if is_file else None
        self.name = path if is_file else os.path.dirname(path)
        self.fps = ((self._file.index.fps if is_file else 0.0) or DEFAULT_FPS) / first["frame_step"]
        if is_file:
            self.pixel_aspect = self._file.index.pixel_aspect
        self.num_frames = len(frames)
        self.paths = list(dict.fromkeys(frame["file_name"] for frame in frames))

    def frames(self, start: int = 0, every: int = 1) -> Iterator[SourceFrame]:
        seconds = self._seconds()
        images = iterate_listed_frames(self._listed[start::every])
        for index, (frame, image) in zip(range(start, self.num_frames, every), images):
            following = min(index + every, self.num_frames - 1)
            duration = float(seconds[following] - seconds[index]) or 1 / self.fps
            yield SourceFrame(index, 0, float(seconds[index]), image, frame["file_name"], "", every, duration)

    def _seconds(self) -> np.ndarray:
        """(N,) when each frame is shown."""
        if self._file is None:
            return np.arange(self.num_frames) / self.fps
        self._file.know_all_frames()
        known = self._file.index.seconds
        # Reading a frame that is not there says so.
        return known[[min(frame["frame_id"], len(known) - 1) for frame in self._listed]]
