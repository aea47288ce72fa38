"""A series of image files as a source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..structures import SourceFrame
from .image_files import read_pages
from .source import DEFAULT_FPS, VideoSource, printable


class ImageSource(VideoSource):
    """Image files as the frames of one video; of stacks and animations, all pages.

    Pages are shown as long as their file says, others for 1 / fps.
    """

    def __init__(self, paths: Sequence[str], pages: Sequence[int | None], name: str, fps: float = DEFAULT_FPS) -> None:
        """`pages`: what `count_pages` says of each file."""
        self.paths = list(paths)
        self.name, self.fps = printable(name), fps
        # One that cannot be read counts too: reading it says so.
        self._pages = [count or 1 for count in pages]
        self.num_frames = sum(self._pages)

    def frames(self, start: int = 0, every: int = 1) -> Iterator[SourceFrame]:
        index, seconds = 0, 0.0
        for path, pages in zip(self.paths, self._pages):
            if pages == 1 and (index < start or (index - start) % every):
                index, seconds = index + 1, seconds + 1 / self.fps
                continue
            for image, stated in read_pages(path):
                duration = stated or 1 / self.fps
                if index >= start and (index - start) % every == 0:
                    yield SourceFrame(index, 0, seconds, image, path, "", every, duration)
                index, seconds = index + 1, seconds + duration
