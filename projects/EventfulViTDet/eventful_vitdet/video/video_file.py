"""Video files: their frames in order, or by number, each with the time at which the file shows it.

>>> for number, seconds, image in iterate_frames("video.mp4", start=100, every=5):  # image: (H, W, 3) uint8, RGB
...     ...
>>> number, seconds, image = read_frame("video.mp4", 20)
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..errors import VideoReadError
from .decoding import Damage, Picture, decode_pictures
from .frame_images import ImageMaker
from .frame_index import FrameIndex, index_by_decoding, make_index
from .index_files import index_identity, keep_index, load_index
from .stated_length import count_missing_bytes

WORTH_A_WORD = 4 * 10**9
"""Bytes: reading so many takes so long that whoever waits should know why."""
DECODING_WORTH_A_WORD = 5 * 10**7
"""The same for decoding."""
WORTH_A_JUMP = 64
"""Frames: over fewer, decoding on is as quick as going to a key frame."""

logger = logging.getLogger(__name__)


class NumberedImage(NamedTuple):
    """A frame: its number, counted from 0, when the file shows it, and its image."""

    number: int
    seconds: float
    image: np.ndarray


@dataclass(frozen=True)
class VideoInfo:
    """Size in pixels, the right way up; frames per second, on average, and number of frames, both 0 where nothing
    tells."""

    width: int
    height: int
    fps: float
    num_frames: int


def probe_video(path: str) -> VideoInfo:
    """Open a video and return what is known of it. Raises VideoReadError."""
    index = VideoFile(path).index
    return VideoInfo(index.width, index.height, index.fps, index.num_frames or index.stated_frames)


def read_frame(path: str, number: int) -> NumberedImage:
    """Read the frame of a number, counted from 0, as RGB. Raises VideoReadError where it is absent or damaged."""
    picture = VideoFile(path).read(number)
    return NumberedImage(number, picture.seconds, ImageMaker("RGB")(picture.frame))


def iterate_frames(path: str, start: int = 0, every: int = 1) -> Iterator[NumberedImage]:
    """Yield the frames `start`, `start` + `every`, ... of a video file in order, as RGB.

    Of a damaged file, all that can be decoded is given, with a warning in the log, and VideoReadError is raised after
    the last frame. Close the iterator (contextlib.closing) where it is left early.
    """
    make_image = ImageMaker("RGB")
    with closing(VideoFile(path).pictures(start)) as pictures:
        for picture in take_every(pictures, start, every):
            yield NumberedImage(picture.number, picture.seconds, make_image(picture.frame))


def take_every(pictures: Iterable[Picture], start: int, every: int) -> Iterator[Picture]:
    """The pictures whose numbers are `start`, `start` + `every`, ..."""
    if every < 1:
        raise ValueError(f"every = {every}: take every frame (1), every second one (2), ...")
    return (picture for picture in pictures if (picture.number - start) % every == 0)


class VideoFile:
    """A video file and the index of its frames."""

    def __init__(self, path: str) -> None:
        """Raises VideoReadError for what is no video."""
        self.path = os.fspath(path)
        try:
            self._identity = index_identity(self.path)
        except OSError:
            self._identity = None  # reading it says what is wrong
        self.index = load_index(self.path) or self._make_and_keep(self._make_index)

    def pictures(self, start: int = 0, *, strict: bool = False) -> Iterator[Picture]:
        """Yield the frames from number `start` on.

        Raises VideoReadError for damage: with `strict` as soon as it is met, else after the last frame.
        """
        if start < 0:
            raise ValueError(f"{self.path}: there is no frame {start}; numbers begin at 0")
        if strict:
            self.check_complete()
        damages = Damages(self.path, self.index.shortfall)
        report = damages.refuse if strict else damages.add
        yield from decode_pictures(self.path, self.index, start, report)
        if damages:
            raise VideoReadError(str(damages))

    def pictures_at(self, numbers: Iterable[int]) -> Iterator[Picture]:
        """Yield the frames of the given rising numbers. Raises VideoReadError where one is absent or damaged."""
        with ExitStack() as stack:
            pictures, position = iter(()), None
            for number in numbers:
                if position is None or self._is_worth_a_jump(position, number):
                    stack.close()
                    start = 0 if self.index.num_frames is None else number
                    pictures = stack.enter_context(closing(self.pictures(start, strict=True)))
                for picture in pictures:
                    position = picture.number + 1
                    if picture.number == number:
                        yield picture
                        break
                else:
                    raise VideoReadError(self._absence(number, position or 0))

    def read(self, number: int) -> Picture:
        """The frame of a number. Raises VideoReadError where it is absent or damaged."""
        number = int(number)
        self.know_all_frames()
        if not 0 <= number < self.index.num_frames:
            raise VideoReadError(self._absence(number, self.index.num_frames))
        if not self.index.sure_numbers:
            self.check_complete()
        self._check_before_gaps(number)
        damages = Damages(self.path)

        def report(damage: Damage) -> None:
            if damage.first <= number:
                damages.refuse(damage)

        with closing(decode_pictures(self.path, self.index, number, report)) as pictures:
            for picture in pictures:
                return picture
        raise VideoReadError(self._absence(number, number))

    def _check_before_gaps(self, number: int) -> None:
        """Raise VideoReadError for a frame behind a place where others are missing."""
        known, after = self.index.stamps, self.index.unsure_after
        if known is not None and after is not None and known[number] > after:
            raise VideoReadError(
                f"{self.path}: frame {number} cannot be read by its number; the video is damaged at "
                f"{self.index.second_of(after):.3f} s, and frames are missing there"
            )

    def know_all_frames(self) -> None:
        """See to it that the index knows all frames, if need be by decoding the whole file."""
        if self.index.num_frames is None:
            takes_long = os.path.getsize(self.path) > DECODING_WORTH_A_WORD
            logger.log(
                logging.INFO if takes_long else logging.DEBUG,
                "%s: its packets do not tell which frames it has; decoding it once",
                self.path,
            )
            self.index = self._make_and_keep(lambda: index_by_decoding(self.path, self.index))

    def check_number(self, number: int) -> None:
        """Raise VideoReadError for a number behind the last frame. Decodes the file only where it does not tell."""
        if self.index.num_frames is None and number >= self.index.stated_frames:
            self.know_all_frames()
        count = self.index.num_frames or self.index.stated_frames
        if number >= count:
            raise VideoReadError(self._absence(number, count))

    def check_complete(self) -> None:
        """Raise VideoReadError if the file is cut short."""
        if self.index.shortfall:
            raise VideoReadError(f"{self.path}: the file is cut short: {self.index.shortfall}")

    def _make_index(self) -> FrameIndex:
        size = os.path.getsize(self.path) if os.path.isfile(self.path) else 0
        if size > WORTH_A_WORD:
            logger.warning("%s: its %.0f GB are read once, for an index of its frames", self.path, size / 1e9)
        index = make_index(self.path)
        missing = 0 if index.shortfall else count_missing_bytes(self.path)
        if missing:
            logger.warning("%s: is %d bytes shorter than its headers say; what is there is read", self.path, missing)
        return index

    def _make_and_keep(self, make: Callable[[], FrameIndex]) -> FrameIndex:
        """An index, kept as that of the file as it was when it was opened: whoever opens one that has grown since
        makes another."""
        index = make()
        if self._identity is not None:
            keep_index(self.path, index, self._identity)
        return index

    def _is_worth_a_jump(self, position: int, number: int) -> bool:
        if self.index.stamps is None or not position + WORTH_A_JUMP <= number < len(self.index.stamps):
            return False
        first, last = np.searchsorted(self.index.keys[:, 0], self.index.stamps[[position, number]], side="right")
        return bool(last > first)

    def _absence(self, number: int, found: int) -> str:
        count = found if self.index.num_frames is None else self.index.num_frames
        end = f"is cut short: {self.index.shortfall}" if self.index.shortfall else f"ends after {count} frames"
        return f"{self.path}: frame {number} cannot be read; the video {end}"


class Damages:
    """What was found damaged in a file."""

    def __init__(self, path: str, shortfall: str = "") -> None:
        self._path = path
        self._found: list[Damage] = []
        self._shortfall = shortfall
        if shortfall:
            logger.warning("%s: the file is cut short: %s", path, shortfall)

    def __bool__(self) -> bool:
        return bool(self._found or self._shortfall)

    def add(self, damage: Damage) -> None:
        """Take note of some more, and say so in the log where it is not what was said before."""
        before = self._found[-1] if self._found else None
        if before is not None and before.lost == damage.lost and before.last + 1 == damage.first:
            self._found[-1] = replace(before, last=damage.last)
            return
        self._found.append(damage)
        logger.warning("%s: %s", self._path, describe_damage(damage))

    def refuse(self, damage: Damage) -> None:
        """Raise VideoReadError."""
        raise VideoReadError(f"{self._path}: {describe_damage(damage)}; the video is damaged")

    def __str__(self) -> str:
        parts = [f"the file is cut short: {self._shortfall}"] if self._shortfall else []
        for lost, state in ((True, "cannot be decoded"), (False, "can only be decoded in part")):
            found = [damage for damage in self._found if damage.lost == lost]
            if found:
                count = sum(max(1, damage.last - damage.first + 1) for damage in found)
                frames = f"{count} frame{'s' if count > 1 else ''}"
                place = "before" if found[0].last < found[0].first else "is"
                parts.append(f"{frames} {state}, the first {place} frame {found[0].first} ({found[0].seconds:.3f} s)")
        return f"{self._path}: the video is damaged: {'; '.join(parts)}"


def describe_damage(damage: Damage) -> str:
    """Which frames are damaged, from when on, and how."""
    if damage.last < damage.first:
        return f"something before frame {damage.first} ({damage.seconds:.3f} s) cannot be decoded"
    several = damage.last > damage.first
    frames = f"frames {damage.first} to {damage.last}" if several else f"frame {damage.first}"
    place = f"{'from ' if several else ''}{damage.seconds:.3f} s"
    return f"{frames} ({place}) {'cannot be decoded' if damage.lost else 'can only be decoded in part'}"
