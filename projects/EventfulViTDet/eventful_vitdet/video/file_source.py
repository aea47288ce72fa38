"""Video files as a source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..structures import SourceFrame
from .reading import decode_video, probe_video
from .source import DEFAULT_FPS, VideoSource


class FileSource(VideoSource):
    """Video files, one after the other."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Raises VideoReadError for a file that is no video, before any frame is read."""
        self.paths = list(paths)
        infos = [probe_video(path) for path in self.paths]
        self.name = self.paths[0] if len(self.paths) == 1 else f"{len(self.paths)} videos"
        self.fps = infos[0].fps or DEFAULT_FPS
        # Containers without an index do not know their length.
        self.num_frames = sum(info.num_frames for info in infos) if all(i.num_frames for i in infos) else None

    def frames(self, start: int = 0) -> Iterator[SourceFrame]:
        index = 0
        for sequence, path in enumerate(self.paths):
            skip = max(0, start - index)
            if skip and self.num_frames and sequence < len(self.paths) - 1:
                length = probe_video(path).num_frames
                if skip >= length:
                    index += length
                    continue
            index += skip
            for image in decode_video(path, skip):
                yield SourceFrame(index, sequence, index / self.fps, image, path)
                index += 1
