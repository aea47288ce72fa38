"""The frames of a video that are asked for, and what is written of them: the annotated video, and pictures of some."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import closing
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..errors import VideoReadError, VideoWriteError
from ..files import file_key, write_atomically
from ..structures import SourceFrame
from ..video import SoundCopy, VideoSource, VideoWriter, check_part, encode_png

if TYPE_CHECKING:
    from .annotated_video import AnnotateOptions

Item = TypeVar("Item")

logger = logging.getLogger(__name__)


class FrameFiles:
    """Writes annotated frames: the video, with the source's sound, and pictures of the frames in `save_frames`.

    A context manager; at its regular end it says which of these frames there were not.
    """

    def __init__(self, source: VideoSource, output: str, options: AnnotateOptions) -> None:
        sound = SoundCopy(source.sound_path) if options.sound and source.sound_path else None
        fps = source.fps / options.every
        self._video = VideoWriter(output, fps, keep_partial=True, pixel_aspect=source.pixel_aspect, sound=sound)
        self._name, self._output = source.name, output
        self._missing = set(options.save_frames)
        self._frames = 0

    def __enter__(self) -> FrameFiles:
        self._video.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._video.__exit__(kind, error, trace)
        if kind is None and self._missing:
            missing = ", ".join(map(str, sorted(self._missing)))
            logger.warning("%s: no picture of frame %s: there were %d frames", self._name, missing, self._frames)

    def write(self, frame: SourceFrame, picture: np.ndarray) -> None:
        """Write a frame as it was painted, BGR."""
        self._video.write(picture, frame.seconds, frame.duration)
        self._frames += 1
        if frame.index in self._missing:
            path = picture_path(self._output, frame.index)
            write_atomically(path, encode_png(picture))
            self._missing.remove(frame.index)
            logger.info("frame %d: %s", frame.index, path)


def selected_frames(source: VideoSource, options: AnnotateOptions) -> Iterator[SourceFrame]:
    """The frames of a source that are asked for, in order. Raises VideoReadError if it ends before the first one."""
    is_empty = True
    with closing(source.frames(options.start, options.every)) as frames:
        for frame in itertools.islice(frames, options.max_frames):
            if options.end is not None and frame.index >= options.end:
                return
            is_empty = False
            yield frame
    if is_empty and options.start:
        raise VideoReadError(f"{source.name}: ends before frame {options.start}, with which it was to start")


def count_frames(source: VideoSource, options: AnnotateOptions) -> int | None:
    """How many frames there will be; None where nobody knows."""
    ends = [end for end in (source.num_frames, options.end) if end is not None]
    counts = [len(range(options.start, min(ends), options.every))] if ends else []
    return min(counts + [options.max_frames] if options.max_frames else counts, default=None)


def put_off_errors(frames: Iterable[Item], unread: list[VideoReadError]) -> Iterator[Item]:
    """The frames up to one that cannot be read, which goes to `unread`: what was made of those before it is finished
    first. Without any, the error is raised at once."""
    is_first = True
    try:
        for frame in frames:
            yield frame
            is_first = False
    except VideoReadError as error:
        if is_first:
            raise
        unread.append(error)


def check_files(source: VideoSource, output: str, options: AnnotateOptions) -> None:
    """What can be told before anything is computed.

    Raises ConfigError for a part that a source cannot have, VideoWriteError if an output is a folder, or would take the
    place of an input or of another output.
    """
    check_part(source, options.start, options.end, options.every)
    pictures = [picture_path(output, number) for number in options.save_frames]
    inputs = set(map(file_key, source.paths))
    taken = set()
    for path in (output, *filter(None, (options.save_json, options.save_csv)), *pictures):
        key = file_key(path)
        if os.path.isdir(path):
            raise VideoWriteError(f"{path}: is a folder; name a file")
        if key in inputs:
            raise VideoWriteError(f"{path}: is the input itself, or a part of it; write to another file")
        if key in taken:
            raise VideoWriteError(f"{path}: is given for two outputs; use a different file for each")
        taken.add(key)


def picture_path(output: str, index: int) -> str:
    """Where the picture of a frame is written, beside the video."""
    return f"{os.path.splitext(output)[0]}_{index}.png"
