"""The frames of a video file in order, from any number on, each under its number; what is damaged is told.

As long as all is well, all processors decode. At the first sign of damage, decoding begins again at the last place
where it can, one packet at a time, so that every error belongs to its frame and nothing that can be decoded is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import av
import numpy as np
from av.bitstream import BitStreamFilterContext

from .container import Item, decode_packet, ignore_log, open_container, read_packets, video_stream
from .frame_index import FrameClock, FrameIndex, checksum, stamp_of

MOST_HELD = 16
"""Frames that are put in order behind a damaged place, where decoders give them out of order; no codec needs more."""
JOINT_PACKETS = 2
"""Transport streams number their parts. Where two of them are joined the numbers jump, and one of the last so many
packets of the first is called incomplete, though nothing is missing."""


@dataclass(frozen=True)
class Picture:
    """A decoded frame."""

    number: int
    seconds: float
    duration: float
    """Seconds until the next frame; 0 where nothing tells."""
    frame: av.VideoFrame
    is_sound: bool = True
    """Neither it nor those that it is predicted from are damaged."""


@dataclass(frozen=True)
class Damage:
    """Frames from number `first` to `last` that cannot be decoded, or only in part."""

    first: int
    last: int
    """One less than `first` for what was lost before that frame without having a number."""
    seconds: float
    """When the first of them is shown."""
    lost: bool
    """Nothing of them was decoded."""


class _Stumble(Exception):  # noqa: N818 - a turn of the road, not an error
    """Something is not as it should be."""


@dataclass(frozen=True)
class _Output:
    """A frame of the decoder with its number; or a fault, with the number of its frame where that is known."""

    number: int | None = None
    frame: av.VideoFrame | None = None
    is_fault: bool = False


def decode_pictures(path: str, index: FrameIndex, start: int, report: Callable[[Damage], None]) -> Iterator[Picture]:
    """Yield the frames of a file from number `start` to its end.

    Args:
        index: one that knows all frames, or any where `start` is 0.
        report: told of damage before the frames that follow it are given; what it raises ends the decoding.

    Raises VideoReadError where the file cannot be opened.
    """
    if index.num_frames is not None and start >= index.num_frames:
        return
    position = start
    try:
        for picture in _decode_quickly(path, index, start):
            yield picture
            position = picture.number + 1
    except _Stumble:
        yield from _CarefulDecoding(path, index, position, report).pictures()


def _decode_quickly(path: str, index: FrameIndex, start: int) -> Iterator[Picture]:
    """Yield frames as long as each is the next one and sound; raises _Stumble where one is not."""
    maker = _PictureMaker(index)
    with _decoder(path, index, start, threads=0) as (expected, outputs):
        for output in outputs:
            if output.is_fault or output.number != expected or output.frame.is_corrupt:
                raise _Stumble
            expected += 1
            picture = maker.make(output.number, output.frame)
            if output.number >= start:
                yield picture
    if index.num_frames is not None and expected < index.num_frames:
        raise _Stumble


class _CarefulDecoding:
    """Decodes a damaged file: one packet at a time, frames put in order, gaps told."""

    def __init__(self, path: str, index: FrameIndex, start: int, report: Callable[[Damage], None]) -> None:
        self._path, self._index, self._start, self._report = path, index, start, report
        self._maker = _PictureMaker(index)
        self._expected = 0
        self._held: list[tuple[int, av.VideoFrame]] = []
        self._incomplete: set[int] = set()
        """Numbers of frames whose packets are."""
        self._tainted = False
        """The last frame was damaged, and no key frame has come since."""
        self._open_fault = False
        """A fault that no lost or damaged frame explains yet."""

    def pictures(self) -> Iterator[Picture]:
        """Yield frames from the first number on."""
        with _decoder(self._path, self._index, self._start, threads=1) as (self._expected, outputs):
            for output in outputs:
                if output.is_fault:
                    self._note_fault(output.number)
                elif output.frame is not None:
                    self._held.append((output.number, output.frame))
                    yield from self._give_certain(output.number, output.frame)
            yield from self._give_all()
        if self._index.num_frames is not None and self._expected < self._index.num_frames:
            self._lose(self._index.num_frames)
        elif self._open_fault:
            self._report_between()

    def _note_fault(self, number: int | None) -> None:
        if number is not None:
            self._incomplete.add(number)
        elif self._index.stamps is not None:
            self._open_fault = True
        else:
            self._tainted = True
            self._report_between()

    def _give_certain(self, number: int, frame: av.VideoFrame) -> Iterator[Picture]:
        """Give the held frames that no earlier one can follow; the newest is given here."""
        if self._index.stamps is None or (frame.key_frame and not frame.is_corrupt):
            yield from self._give_all()
        elif not self._open_fault and len(self._held) == 1 and number == self._expected:
            yield from self._give_first()
        elif len(self._held) > MOST_HELD:
            self._explain_fault()
            yield from self._give_first()

    def _give_all(self) -> Iterator[Picture]:
        self._explain_fault()
        while self._held:
            yield from self._give_first()

    def _explain_fault(self) -> None:
        """Where the held frames are all there and do not know of damage, all of them are suspect."""
        if not self._open_fault or not self._held:
            return
        self._open_fault = False
        numbers = sorted(number for number, _ in self._held)
        complete = numbers == list(range(self._expected, self._expected + len(numbers)))
        if complete and not any(frame.is_corrupt or number in self._incomplete for number, frame in self._held):
            self._tainted = True
            if all(frame.key_frame for _, frame in self._held):
                self._report_between()

    def _give_first(self) -> Iterator[Picture]:
        first = min(self._held, key=lambda held: held[0])
        self._held.remove(first)
        number, frame = first
        if number < self._expected:  # it came too late
            return
        if number > self._expected:
            self._lose(number)
        if frame.is_corrupt or number in self._incomplete:
            self._tainted = True
        elif frame.key_frame:
            self._tainted = False
        self._expected = number + 1
        picture = self._maker.make(number, frame, is_sound=not self._tainted)
        if number >= self._start:
            if self._tainted:
                self._report(Damage(number, number, picture.seconds, lost=False))
            yield picture

    def _lose(self, until: int) -> None:
        """The frames from the expected one to `until` (exclusive) are lost."""
        first = max(self._expected, self._start)
        self._tainted, self._open_fault = True, False
        if first < until:
            self._report(Damage(first, until - 1, self._maker.seconds_of(first), lost=True))

    def _report_between(self) -> None:
        number = self._expected
        if number >= self._start:
            self._report(Damage(number, number - 1, self._maker.seconds_of(number), lost=True))


class _PictureMaker:
    """Gives frames their times: those of the index, or by their own stamps where that does not know them yet."""

    def __init__(self, index: FrameIndex) -> None:
        self._index = index
        self._clock = FrameClock(index)

    def make(self, number: int, frame: av.VideoFrame, *, is_sound: bool = True) -> Picture:
        """The picture of a frame."""
        known = self._index.seconds
        if known is None:
            seconds = self._clock.seconds(frame)
            duration = self._clock.next - seconds
        else:
            seconds = self.seconds_of(number)
            duration = float(known[number + 1]) - seconds if number + 1 < len(known) else self._average()
        if frame.duration and (known is None or number + 1 == len(known)):
            duration = float(frame.duration * self._index.time_base)
        return Picture(number, seconds, duration, frame, is_sound)

    def seconds_of(self, number: int) -> float:
        """When a frame is shown, one after the other in any case."""
        known = self._index.seconds
        if known is None:
            return self._clock.next
        beyond = number + 1 - len(known)  # of a damaged file, a decoder may give more frames than there are packets
        return float(known[number]) if beyond <= 0 else float(known[-1]) + beyond * self._average()

    def _average(self) -> float:
        return 1 / self._index.fps if self._index.fps else 0.0


@contextmanager
def _decoder(path: str, index: FrameIndex, start: int, threads: int) -> Iterator[tuple[int, Iterator[_Output]]]:
    """A number at or before `start`, and what the decoder gives from the frame of that number on."""
    for place in _places_before(index, start):
        number = place.number
        with open_container(path) as container:
            stream = video_stream(container, path, threads=threads, strict=threads != 1)
            outputs = _outputs(container, stream, index, place)
            first = _first_at(outputs, number) if _seek(container, stream, place.seek_stamp) else None
            if first is not None and first.number == number:
                yield number, chain([first], outputs)
                return
    with open_container(path) as container:
        yield 0, _outputs(container, video_stream(container, path, threads=threads, strict=threads != 1), index)


@dataclass(frozen=True)
class _Place:
    """A key frame: its number, and its row of FrameIndex.keys."""

    number: int
    stamp: int
    seek_stamp: int
    checksum: int


def _places_before(index: FrameIndex, start: int) -> Iterator[_Place]:
    """Key frames at or before frame `start`, the nearest first, then ever fewer of them.

    The frame itself has to be shown after the key frame: those that are stored behind it but shown before it may need
    others that come still earlier.
    """
    if index.stamps is None or start == 0:
        return
    stamp = index.stamps[min(start, len(index.stamps) - 1)]  # what is wrong may come behind the last frame
    before = int(np.searchsorted(index.keys[:, 0], stamp, side="right"))
    back = 1
    while back <= before:
        row = index.keys[before - back].tolist()
        number = int(np.searchsorted(index.stamps, row[0]))
        if number == 0:  # from the file's beginning, which needs no seeking
            return
        yield _Place(number, *row)
        back *= 2


def _seek(container: av.container.InputContainer, stream: av.VideoStream, stamp: int) -> bool:
    try:
        container.seek(stamp, stream=stream)
    except av.error.FFmpegError:
        return False
    return True


def _first_at(outputs: Iterator[_Output], number: int) -> _Output | None:
    """The first frame of at least this number; after a jump, what comes before it is incomplete in a sound file too."""
    return next((output for output in outputs if output.number is not None and output.number >= number), None)


def _outputs(
    container: av.container.InputContainer, stream: av.VideoStream, index: FrameIndex, place: _Place | None = None
) -> Iterator[_Output]:
    """What the decoder gives, in its order. Frames are counted where time stamps do not tell their numbers.

    After a jump to `place`, nothing more is given where another packet than its own has its time stamp.
    """
    count = 0
    is_hevc = stream.codec_context.codec.canonical_name == "hevc"
    witness = _Witness(stream) if is_hevc and stream.codec_context.thread_count == 1 else None
    # A recording may begin in the midst of a group of pictures. Strict decoders call that a fault, others pass over it.
    awaits_key = is_hevc and place is None
    for item, following in _with_following(read_packets(container, stream)):
        awaits_key = awaits_key and isinstance(item, av.Packet) and not item.is_keyframe
        if place is not None and isinstance(item, av.Packet) and stamp_of(item) == place.stamp:
            if checksum(item) != place.checksum:
                return
            place = None
        is_torn = isinstance(item, av.Packet) and item.pts is not None and item.pts in index.torn
        is_incomplete = is_torn or _is_incomplete(item, following, container.format.name)
        if is_incomplete or (witness is not None and not awaits_key and witness.sees_damage(item)):
            yield _Output(None if index.stamps is None else index.number_of(item.pts), is_fault=True)
        decoded = decode_packet(stream, item)
        if decoded.fault and not awaits_key:
            yield _Output(is_fault=True)
        for frame in decoded.frames:
            number = count if index.stamps is None else index.number_of(frame.pts)
            yield _Output(number, None if number is None else frame, is_fault=number is None)
            count += 1


class _Witness:
    """A second decoder of HEVC, which raises what the one that gives the frames passes over.

    It does not get the additional information (SEI), as that is often wrong and never needed.
    """

    def __init__(self, stream: av.VideoStream) -> None:
        self._decoder = av.CodecContext.create("hevc", "r")
        header = stream.codec_context.extradata or b""
        if header.startswith(b"\0\0"):  # others are put into the packets
            self._decoder.extradata = header
        self._decoder.options = {"err_detect": "explode"}
        self._decoder.thread_count = 1
        self._filter = BitStreamFilterContext("hevc_mp4toannexb,filter_units=remove_types=39-40", stream)

    def sees_damage(self, item: Item) -> bool:
        """Whether a packet is damaged."""
        if not isinstance(item, av.Packet) or item.size == 0:
            return False
        ignore_log()
        try:
            for packet in self._filter.filter(av.Packet(bytes(item))):
                self._decoder.decode(packet)
        except av.error.FFmpegError:
            return True
        return False


def _with_following(items: Iterator[Item]) -> Iterator[tuple[Item, list[Item]]]:
    """Each item with those that follow it, at most JOINT_PACKETS."""
    waiting: list[Item] = []
    for item in items:
        waiting.append(item)
        if len(waiting) > JOINT_PACKETS:
            yield waiting.pop(0), waiting
    while waiting:
        yield waiting.pop(0), waiting


def _is_incomplete(item: Item, following: list[Item], format_name: str) -> bool:
    """Whether a part of a packet is missing."""
    if not isinstance(item, av.Packet) or not item.is_corrupt:
        return False
    return not (format_name == "mpegts" and any(_is_another_stream(item, packet) for packet in following))


def _is_another_stream(item: av.Packet, packet: Item) -> bool:
    """Whether a packet begins another stream than the one that an earlier packet belongs to: its time is elsewhere."""
    if not isinstance(packet, av.Packet) or not packet.is_keyframe or None in (packet.dts, item.dts):
        return False
    return not 0 < (packet.dts - item.dts) * packet.time_base < 1
