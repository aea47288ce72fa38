"""Which frames a video file has, when each is shown, and where decoding can begin.

Frame n is the n-th picture that a decoder gives when it reads the file from its beginning. The packets of most files
tell as much without decoding: one packet is one picture, and its time stamp says where it belongs. Where they do
not (hidden pictures as in VP8, stamps that are missing, repeated or run backwards, pictures in two fields), the whole
file is decoded once.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import av
import numpy as np

from ..errors import VideoReadError
from .container import decode_packet, open_container, read_packets, video_stream
from .frame_images import display_matrix, swaps_sides
from .stated_length import find_lost_chunks, find_lost_fragments
from .transport_packets import find_torn_places

ONE_PACKET_A_PICTURE = frozenset({"av1", "ffv1", "h264", "hevc", "mpeg1video", "mpeg2video", "png", "vp9", "vvc"})
"""Codecs, beside those without prediction between pictures, whose packets each show exactly one. MPEG-4 and its
relatives are not among them: there a packet may say "as before"."""
FIRST_PICTURES = 4
"""So many are decoded to see whether they are those that the packets promise."""
MOST_REORDERED = 16
"""No codec shows a frame further from where it is stored."""
SLACK_FRAMES = 1.5
"""A file that ends so much earlier than it says is not called short: who wrote it may not have known how long the last
frame is shown."""
PLAUSIBLE_FPS = (0.001, 1000.0)


@dataclass(frozen=True)
class FrameIndex:
    """The frames of a file. Its arrays are in the order in which frames are shown."""

    width: int
    height: int
    """Of the images in pixels, the right way up."""
    fps: float
    """Frames per second, on average; 0 where nothing tells."""
    pixel_aspect: Fraction
    """Width of a pixel by its height, the right way up."""
    time_base: Fraction
    """Seconds per unit of the time stamps."""
    origin: int
    """The time stamp that is second 0."""
    stated_frames: int
    """What the container says; 0 where it says nothing."""
    shortfall: str = ""
    """What the file lacks of what it says that it has."""
    sure_numbers: bool = True
    """False where frames behind a damaged part may have got the numbers of others."""
    seconds: np.ndarray | None = None
    """(N,) float64, when each frame is shown; None until somebody decodes the file."""
    stamps: np.ndarray | None = None
    """(N,) int64, time stamps, which rise strictly; None where frames cannot be told apart by them."""
    keys: np.ndarray = field(default_factory=lambda: np.empty((0, 3), np.int64))
    """(K, 3) int64: time stamp, the stamp to seek to, and the packet's checksum, of frames that decoding can begin
    with, by time."""
    torn: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """(T,) int64: time stamps of the last frames before places where a transport stream is torn."""
    unsure_after: int | None = None
    """Time stamp from which on others may be missing without a trace, so that numbers are those of other frames."""

    @property
    def num_frames(self) -> int | None:
        """None until it is known."""
        return None if self.seconds is None else len(self.seconds)

    def number_of(self, stamp: int | None) -> int | None:
        """The number of the frame with a time stamp; None if there is none."""
        if stamp is None:
            return None
        number = int(np.searchsorted(self.stamps, stamp))
        return number if number < len(self.stamps) and self.stamps[number] == stamp else None

    def second_of(self, stamp: int) -> float:
        """When something with a time stamp is shown."""
        return float((stamp - self.origin) * self.time_base)


def make_index(path: str) -> FrameIndex:
    """Read all packets of a file, and decode its first pictures. Raises VideoReadError if it has none."""
    first = _decode_first(path)
    with open_container(path) as container:
        stream = video_stream(container, path)
        packets = _scan(container, stream)
        places = find_torn_places(path) if container.format.name == "mpegts" else []
        torn = _packets_before(places, packets)
        shortfall = _shortfall(path, container, stream, packets)
        frame, aspect = first.pictures[0], Fraction(stream.sample_aspect_ratio or 1)
        turned = swaps_sides(display_matrix(frame))
        index = FrameIndex(
            width=frame.height if turned else frame.width,
            height=frame.width if turned else frame.height,
            fps=_frame_rate(stream, packets),
            pixel_aspect=1 / aspect if turned else aspect,
            time_base=stream.time_base,
            origin=_origin(container, stream, packets),
            stated_frames=stream.frames,
            shortfall=shortfall,
            # In AVI a frame's time is its place among those that were found.
            sure_numbers=not (shortfall and container.format.name == "avi"),
            torn=np.unique(torn[:, 1]),
            # What is missing is decoded later, though it may be shown before what is there.
            unsure_after=min([*torn[:, 2].tolist(), *_before_gaps(packets)], default=None),
        )
        return _index_by_packets(index, stream, packets, first) or index


def index_by_decoding(path: str, index: FrameIndex) -> FrameIndex:
    """An index that knows all frames, made by decoding the file."""
    stamps, seconds, keys, is_sound = _decode_stamps(path, index, threads=0)
    if not is_sound:
        stamps, seconds, keys, _ = _decode_stamps(path, index, threads=1)
    rising = None not in stamps and bool(np.all(np.diff(np.array(stamps, np.int64)) > 0))
    return replace(
        index,
        seconds=np.array(seconds, np.float64),
        stamps=np.array(stamps, np.int64) if rising else None,
        keys=_key_array(keys) if rising else _key_array([]),
    )


def _decode_stamps(
    path: str, index: FrameIndex, threads: int
) -> tuple[list[int | None], list[float], list[tuple[int, int, int]], bool]:
    """The time stamps of all frames and when they are shown, those of key frames as in FrameIndex, and whether nothing
    was damaged."""
    clock = FrameClock(index)
    stamps: list[int | None] = []
    seconds: list[float] = []
    keys: list[tuple[int, int, int]] = []
    checksums: dict[int, int] = {}
    is_sound = True
    with open_container(path) as container:
        stream = video_stream(container, path, threads=threads)
        for item in read_packets(container, stream):
            if isinstance(item, av.Packet) and item.is_keyframe:
                checksums[stamp_of(item)] = checksum(item)
            decoded = decode_packet(stream, item)
            is_sound = is_sound and not decoded.fault
            for frame in decoded.frames:
                stamp = frame.pts if frame.pts is not None else frame.dts
                stamps.append(stamp)
                seconds.append(clock.seconds(frame))
                if frame.key_frame and stamp in checksums:
                    keys.append((stamp, stamp, checksums[stamp]))
    return stamps, seconds, keys, is_sound


def stamp_of(packet: av.Packet) -> int | None:
    """The time stamp that the picture of a packet has."""
    return packet.dts if packet.pts is None else packet.pts


def checksum(packet: av.Packet) -> int:
    """What tells whether a packet is the one that had its time stamp when the index was made.

    In a program stream not every picture has a time of its own. FFmpeg counts on from the last one that has, and so, in
    some files, comes to another time for the same picture when it begins to read at another place.
    """
    return zlib.crc32(packet)


class FrameClock:
    """Tells by their time stamps when frames are shown, one after the other.

    A frame without a stamp, or with an earlier one than the frame before it, as where another recording begins, comes
    as long after that one as frames do on average; the clock continues from there.

    MPEG-4 may have two pictures in one packet ("packed B-frames"), which is taken for one; the times of both are wrong
    then. Those at which frames are decoded rise in such files, and are used as soon as this shows.
    """

    def __init__(self, index: FrameIndex) -> None:
        self._index = index
        self._step = 1 / index.fps if index.fps else 0.0
        self._shift = 0.0
        self.next = 0.0
        """When the next frame would be shown that has no stamp."""
        self._shown, self._decoded = _Falls(), _Falls()

    def seconds(self, frame: av.VideoFrame) -> float:
        """When the next frame is shown."""
        self._shown.add(frame.pts)
        self._decoded.add(frame.dts)
        packed = self._shown.count > self._decoded.count
        stamp = frame.dts if packed or frame.pts is None else frame.pts
        seconds = self.next if stamp is None else self._index.second_of(stamp) + self._shift
        if seconds < self.next - self._step:
            self._shift += self.next - seconds
            seconds = self.next
        self.next = seconds + self._step
        return seconds


class _Falls:
    """Counts how often time stamps fall instead of rising."""

    def __init__(self) -> None:
        self.count = 0
        self._last: int | None = None

    def add(self, stamp: int | None) -> None:
        """The next stamp; None where it is missing."""
        if stamp is not None:
            self.count += self._last is not None and stamp < self._last
            self._last = stamp


@dataclass
class _Packets:
    """What the packets of the video stream say, in the order in which they are stored."""

    stamps: list[int | None] = field(default_factory=list)
    """Of those that are shown."""
    keys: list[tuple[int | None, int, int]] = field(default_factory=list)
    """Time stamp, stamp to seek to, checksum."""
    found: int = 0
    """All that were read, also those that show nothing."""
    end: int = -(2**63)
    """The time stamp at which the last picture ends, as far as the packets know."""
    starts: list[tuple[int, int, int]] = field(default_factory=list)
    """Where in the file, in bytes, packets with a time stamp begin, that stamp, and when they are decoded."""
    incomplete: list[tuple[int, int]] = field(default_factory=list)
    """When incomplete packets are decoded, and how long after them the next one is."""
    last_decoded: int = -(2**63)
    """When the last picture is decoded."""
    backwards: bool = False
    """Decoding times do not rise: the file is put together from several."""

    @property
    def known(self) -> list[int]:
        """The stamps without the missing ones."""
        return [stamp for stamp in self.stamps if stamp is not None]


def _scan(container: av.container.InputContainer, stream: av.VideoStream) -> _Packets:
    packets, last = _Packets(), None
    is_of_stream = _runs_anyhow(container)
    for packet in read_packets(container, stream):
        if not isinstance(packet, av.Packet):
            continue
        packets.found += 1
        if packet.size == 0:  # "as before"
            continue
        if packet.dts is not None:
            packets.backwards = packets.backwards or (last is not None and packet.dts <= last.dts)
            if last is not None and last.is_corrupt:
                packets.incomplete.append((last.dts, packet.dts - last.dts))
            last, packets.last_decoded = packet, packet.dts
        if packet.pts is not None:
            packets.starts.append((packet.pos or 0, packet.pts, packet.pts if packet.dts is None else packet.dts))
            packets.end = max(packet.pts + (packet.duration or 0), packets.end)
        if packet.is_keyframe:
            # Others that get the earlier one go to the key frame before.
            seek_stamp = packet.dts if is_of_stream and packet.dts is not None else packet.pts
            packets.keys.append((packet.pts, seek_stamp, checksum(packet)))
        # A recording of a stream may begin anywhere; what comes before its first key frame is not missing.
        if not packet.is_discard and (packets.keys or not is_of_stream):
            packets.stamps.append(packet.pts)
    return packets


def _packets_before(places: Sequence[int], packets: _Packets) -> np.ndarray:
    """(T, 3): the `starts` of the last packets that begin before places in the file."""
    if not places:
        return np.empty((0, 3), np.int64)
    starts = np.array(sorted(packets.starts), np.int64).reshape(-1, 3)
    numbers = np.searchsorted(starts[:, 0], np.array(places, np.int64)) - 1
    return starts[numbers[numbers >= 0]]


def _before_gaps(packets: _Packets) -> list[int]:
    """When incomplete packets are decoded behind which the next one is late."""
    known = packets.known
    if len(known) < 2 or packets.backwards:
        return []
    step = float(np.median(np.diff(np.unique(known))))
    return [stamp for stamp, wait in packets.incomplete if wait > SLACK_FRAMES * step]


@dataclass
class _First:
    """The first pictures that a decoder gives."""

    pictures: list[av.VideoFrame]
    is_sound: bool
    """Nothing was damaged on the way."""


def _decode_first(path: str) -> _First:
    first = _First([], True)
    with open_container(path) as container:
        stream = video_stream(container, path, threads=1)  # so that damage behind these frames does not matter
        for item in read_packets(container, stream):
            decoded = decode_packet(stream, item)
            first.pictures += decoded.frames
            first.is_sound = first.is_sound and not decoded.fault
            if len(first.pictures) >= FIRST_PICTURES:
                break
    if not first.pictures:
        raise VideoReadError(f"{path}: the video has no frame that can be decoded")
    return first


def _index_by_packets(index: FrameIndex, stream: av.VideoStream, packets: _Packets, first: _First) -> FrameIndex | None:
    """The index with what the packets say about frames; None where they cannot be relied on."""
    if not _do_packets_tell(stream, packets, first):
        return None
    stamps = np.sort(np.array(packets.stamps, np.int64))
    in_order = True
    if first.is_sound:
        decoded = [frame.pts for frame in first.pictures]
        # Pictures that need others from before the beginning are not shown.
        stamps = stamps[stamps >= min(decoded)]
        in_order = decoded == stamps[: len(decoded)].tolist()
        # Not in order: as of H.264 in AVI, where stamps are of other frames than those that they come with.
        if not in_order and not set(decoded) <= set(stamps[: len(decoded) + MOST_REORDERED].tolist()):
            return None
    index = replace(index, seconds=(stamps - index.origin) * float(index.time_base))
    if not in_order:
        return index
    return replace(index, stamps=stamps, keys=_key_array(key for key in packets.keys if key[0] is not None))


def _do_packets_tell(stream: av.VideoStream, packets: _Packets, first: _First) -> bool:
    """Whether each packet is one picture with a time stamp of its own."""
    codec = stream.codec_context.codec
    if not (codec.intra_only or codec.canonical_name in ONE_PACKET_A_PICTURE) or packets.backwards:
        return False
    # The two fields of a picture may have a packet each.
    if codec.canonical_name == "h264" and any(frame.interlaced_frame for frame in first.pictures):
        return False
    if None in packets.stamps or any(frame.pts is None for frame in first.pictures):
        return False
    return 0 < len(packets.stamps) == len(set(packets.stamps))


def _key_array(keys: Iterable[tuple[int, int, int]]) -> np.ndarray:
    return np.array(sorted(keys), np.int64).reshape(-1, 3)


def _origin(container: av.container.InputContainer, stream: av.VideoStream, packets: _Packets) -> int:
    """Where time begins: at 0, but in transport and program streams, whose clocks begin anywhere, with the file."""
    known = packets.known
    if not known or not (_runs_anyhow(container) or container.format.name == "avi"):
        return 0
    first = known[0] if packets.backwards else min(known)
    if container.start_time is None or not _runs_anyhow(container):  # AVI counts from 0, but predicted frames wait
        return first
    start = round(Fraction(container.start_time, av.time_base) / stream.time_base)
    return first if abs(first - start) * stream.time_base < Fraction(1, 1000) else start


def _runs_anyhow(container: av.container.InputContainer) -> bool:
    """Whether it is a part of a stream, whose clock may have any time when the recording begins."""
    return bool(container.format.flags & av.format.Flags.ts_discont.value)


def _frame_rate(stream: av.VideoStream, packets: _Packets) -> float:
    """Frames per second: as the container says, if the time stamps agree about it."""
    known = packets.known
    # Without time stamps, as in bare H.264 and HEVC, the average is FFmpeg's default; its guess is the codec's rate.
    average = stream.average_rate if known else None
    stated = float(average or stream.guessed_rate or 0)
    span = float((max(known) - min(known)) * stream.time_base) if known else 0.0
    if span <= 0 or packets.backwards:
        return stated if PLAUSIBLE_FPS[0] <= stated <= PLAUSIBLE_FPS[1] else 0.0
    measured = (len(known) - 1) / span
    return stated if math.isclose(stated, measured, rel_tol=0.02) else measured


def _shortfall(path: str, container: av.container.InputContainer, stream: av.VideoStream, packets: _Packets) -> str:
    """What is missing at the end, as far as the container knows how long it is."""
    if container.format.name == "avi" and (place := find_lost_chunks(path, stream.index)) is not None:
        return f"what it has at byte {place} is damaged, and {_count_lost(stream, packets)}"
    known = packets.known
    if not known:
        return ""
    steps = np.diff(np.unique(known))
    step = int(np.median(steps)) if len(steps) else 1
    if stream.frames > packets.found and stream.duration is not None:
        stated, end = (stream.start_time or 0) + stream.duration, packets.end
        if container.format.name == "avi":  # which counts time in frames; FFmpeg's duration is that of what is there
            stated, end = stream.frames, packets.last_decoded + step
        # Some of those that it counts are only "as before", or left out by an edit list.
        if end < stated - step / 2:
            return f"{packets.found} of {stream.frames} frames are there"
    if "mp4" in container.format.name and (place := find_lost_fragments(path)) is not None:
        return f"its fragments from byte {place} on cannot be read"
    if "matroska" in container.format.name and container.duration is not None:
        stated, end = Fraction(container.duration, av.time_base), packets.end * stream.time_base
        slack = Fraction(SLACK_FRAMES) * step * stream.time_base
        if end < stated - slack and _end_of_all(path) < stated - slack:
            return f"it ends after {float(end):.3f} of {float(stated):.3f} seconds"
    return ""


def _count_lost(stream: av.VideoStream, packets: _Packets) -> str:
    """How many frames of an AVI file are lost in a damaged place."""
    if stream.frames > packets.found:
        return f"{packets.found} of {stream.frames} frames are there"
    return "nothing tells how many frames are lost there"


def _end_of_all(path: str) -> Fraction:
    """The second at which the last packet of any stream ends."""
    end = Fraction(0)
    with open_container(path) as container:
        for packet in read_packets(container):
            if isinstance(packet, av.Packet) and packet.pts is not None:
                end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
    return end
