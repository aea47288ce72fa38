"""Video files as a source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

from ..errors import VideoReadError
from ..structures import SourceFrame
from .frame_images import ImageMaker
from .source import DEFAULT_FPS, VideoSource, printable
from .video_file import VideoFile


class FileSource(VideoSource):
    """Video files, one after the other. Frames are numbered through; their seconds are those of their file."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Raises VideoReadError for a file that is no video, before any frame is read."""
        self.paths = list(paths)
        self._files = [VideoFile(path) for path in self.paths]
        indices = [file.index for file in self._files]
        self.name = printable(self.paths[0] if len(self.paths) == 1 else f"{len(self.paths)} videos")
        self.fps = indices[0].fps or DEFAULT_FPS
        self.sound_path = self.paths[0] if len(self.paths) == 1 else None
        self.pixel_aspect = indices[0].pixel_aspect
        counts = [index.num_frames or index.stated_frames for index in indices]
        self.num_frames = sum(counts) if all(counts) else None

    def frames(self, start: int = 0, every: int = 1) -> Iterator[SourceFrame]:
        """As in VideoSource. What can be decoded of a damaged file is given; its damage is told after the last file."""
        first, damage = 0, None
        make_image = ImageMaker("BGR")
        for sequence, file in enumerate(self._files):
            if start > first and len(self._files) > 1:
                file.know_all_frames()
            last = -1
            try:
                with closing(file.pictures(max(0, start - first))) as pictures:
                    for picture in pictures:
                        last, index = picture.number, first + picture.number
                        if (index - start) % every == 0:
                            image, notice = make_image(picture.frame), "" if picture.is_sound else "damaged"
                            seconds, duration = picture.seconds, picture.duration
                            yield SourceFrame(index, sequence, seconds, image, file.path, notice, every, duration)
            except VideoReadError as error:
                damage = damage or error
            first += last + 1 if file.index.num_frames is None else file.index.num_frames
        if damage is not None:
            raise damage
