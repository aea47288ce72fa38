"""A series of image files as a source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..structures import SourceFrame
from .image_files import read_image_file
from .source import DEFAULT_FPS, VideoSource


class ImageSource(VideoSource):
    """Image files as the frames of one video."""

    def __init__(self, paths: Sequence[str], name: str, fps: float = DEFAULT_FPS) -> None:
        self.paths = list(paths)
        self.name, self.fps, self.num_frames = name, fps, len(self.paths)

    def frames(self, start: int = 0) -> Iterator[SourceFrame]:
        for index, path in enumerate(self.paths[start:], start):
            yield SourceFrame(index, 0, index / self.fps, read_image_file(path), path)
