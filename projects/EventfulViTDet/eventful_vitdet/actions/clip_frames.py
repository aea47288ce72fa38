"""The frames of a clip: at their times in a video file, or in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from ..video.frame_images import ImageMaker
from ..video.image_files import has_image_suffix, read_image_file
from ..video.opening import sorted_naturally
from ..video.video_file import VideoFile
from .clip import Clip

LATE_STOP_SECONDS = 1.0
"""So much may a clip reach beyond the end of its video; annotators' times are not exact."""


@dataclass(frozen=True)
class ClipFrames:
    """The frames of a clip at the rate that a model wants."""

    clip: Clip
    numbers: np.ndarray | None
    """Of the video file's frames, (T,), rising, some perhaps twice; None for a folder."""
    files: tuple[str, ...] = ()
    """Of a folder."""

    def __len__(self) -> int:
        return len(self.files) if self.numbers is None else len(self.numbers)

    def images(self, places: Sequence[int]) -> Iterator[np.ndarray]:
        """RGB images (H, W, 3) of frames of the clip, all of one size, by rising places in it.

        Raises DataError, naming line and clip, if a frame cannot be read or has another size.
        """
        size = None
        with _naming(self.clip):
            for image in self._from_folder(places) if self.numbers is None else self._from_video(places):
                size = size or image.shape
                if image.shape != size:
                    raise DataError(f"{self.clip.path} has frames of several sizes: {image.shape[:2]} after {size[:2]}")
                yield image

    def _from_folder(self, places: Sequence[int]) -> Iterator[np.ndarray]:
        for place in places:
            yield np.ascontiguousarray(read_image_file(self.files[place])[..., ::-1])

    def _from_video(self, places: Sequence[int]) -> Iterator[np.ndarray]:
        wanted = self.numbers[list(places)]
        make_image, image, last = ImageMaker("RGB"), None, -1
        with closing(VideoFile(self.clip.path).pictures_at(np.unique(wanted).tolist())) as pictures:
            for number in wanted.tolist():
                if number != last:
                    image, last = make_image(next(pictures).frame), number
                yield image


def open_clip(clip: Clip, fps: float) -> ClipFrames:
    """Find the frames of a clip.

    Args:
        fps: frames per second; 0: those that are there. Folders are taken to have this rate.

    Raises:
        DataError: its video cannot be read, or has no such times; the message names line, clip and file.
    """
    with _naming(clip):
        return _list_images(clip) if os.path.isdir(clip.path) else _find_in_video(clip, fps)


@contextmanager
def _naming(clip: Clip) -> Iterator[None]:
    """Let a DataError say which line's clip it is about."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{clip.place}: clip {clip.clip_id}: {error}") from error


def _list_images(clip: Clip) -> ClipFrames:
    images = (name for name in os.listdir(clip.path) if has_image_suffix(name) and not name.startswith("."))
    names = sorted_naturally(images)
    if not names:
        raise DataError(f"{clip.path} holds no images")
    return ClipFrames(clip, None, tuple(os.path.join(clip.path, name) for name in names))


def _find_in_video(clip: Clip, fps: float) -> ClipFrames:
    video = VideoFile(clip.path)
    video.know_all_frames()
    seconds = video.index.seconds
    end = video_end(seconds, video.index.fps)
    check_times(clip, end)
    stop = end if clip.stop is None else min(clip.stop, end)
    return ClipFrames(clip, frames_at(seconds, clip.start, stop, fps))


def video_end(seconds: np.ndarray, fps: float) -> float:
    """When the last frame of a video is shown no longer."""
    if not len(seconds):
        return 0.0
    return float(seconds[-1]) + (1 / fps if fps else 0.0)


def check_times(clip: Clip, end: float) -> None:
    """Raise DataError if a clip is not inside its video."""
    if clip.start >= end:
        raise DataError(f"begins at {clip.start:.2f} s, but {clip.path} ends at {end:.2f} s")
    if clip.stop is not None and clip.stop > end + LATE_STOP_SECONDS:
        raise DataError(f"stops at {clip.stop:.2f} s, but {clip.path} ends at {end:.2f} s")


def frames_at(seconds: np.ndarray, start: float, stop: float, fps: float) -> np.ndarray:
    """Numbers of the frames nearest to `start`, `start` + 1 / `fps`, ... before `stop`; at least one.

    Args:
        seconds: (N,), when each frame is shown, rising.
        fps: 0: the frames between the two.
    """
    if fps == 0:
        first, last = np.searchsorted(seconds, (start - 1e-6, stop - 1e-6))
        return np.arange(min(first, len(seconds) - 1), max(last, min(first, len(seconds) - 1) + 1))
    times = start + np.arange(max(1, round((stop - start) * fps))) / fps
    after = np.clip(np.searchsorted(seconds, times), 1, max(len(seconds) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(seconds) - 1)
    return np.where(times - seconds[before] <= seconds[after] - times, before, after)
