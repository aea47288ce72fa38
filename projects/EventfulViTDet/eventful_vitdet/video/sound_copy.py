"""The sound of a video file, copied as it is."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fractions import Fraction

import av
from av.bitstream import BitStreamFilterContext

from .container import open_container, read_packets
from .video_file import VideoFile

TICK = Fraction(1, 1_000_000)
"""Seconds per unit of the times that packets are handed on with."""
JOINT_SECONDS = 0.5
"""A packet that begins so much earlier than the last one ended is the first of another recording."""

logger = logging.getLogger(__name__)


class SoundCopy:
    """Hands on the packets of a file's sound, in step with the frames that are written beside them."""

    def __init__(self, path: str) -> None:
        """Raises VideoReadError for a file that cannot be opened. One without sound has no packets."""
        self._path = path
        self._exit = ExitStack()
        container = self._exit.enter_context(open_container(path))
        self._stream = _find_sound(container, path)
        self._shift = VideoFile(path).index.second_of(0)
        self._packets = _sound_packets(path, container, self._stream) if self._stream else None
        self._waiting: av.Packet | None = None
        self._end: float | None = None
        """The second of the source at which the last packet ends."""
        self._last = None

    def begin(self, target: av.container.OutputContainer, seconds: float) -> None:
        """Make a stream for the sound in a container; what is heard before `seconds` of the source is left out."""
        self._begin = seconds
        self._target = target.add_stream_from_template(self._stream) if self._stream else None

    def packets_until(self, seconds: float) -> Iterator[av.Packet]:
        """The next packets, up to a time of the source.

        The first one may begin earlier than the pictures: as players do not play what comes before time 0, the sound
        need not begin with a whole packet. Codecs also need it to come into step.
        """
        while self._target is not None:
            packet = self._waiting or self._next()
            self._waiting = None
            if packet is None:
                return
            if self._seconds(packet.pts) >= seconds:
                self._waiting = packet
                return
            if self._seconds(packet.pts + packet.duration) > self._begin - TICK:
                self._move(packet)
                if self._last is None or packet.dts > self._last:  # a container takes no others
                    self._last = packet.dts
                    yield packet

    def _next(self) -> av.Packet | None:
        packet = next(self._packets, None)
        if packet is not None:
            if self._end is not None and self._seconds(packet.pts) < self._end - JOINT_SECONDS:
                self._shift += self._end - self._seconds(packet.pts)
            self._end = self._seconds(packet.pts + packet.duration)
        return packet

    def _seconds(self, ticks: int) -> float:
        """When something is heard, in the time of the source's frames."""
        return float(ticks * TICK) + self._shift

    def _move(self, packet: av.Packet) -> None:
        move = round((self._shift - self._begin) / TICK)
        packet.pts, packet.dts = packet.pts + move, packet.dts + move
        packet.stream = self._target

    def close(self) -> None:
        """Close the file."""
        self._exit.close()


def _sound_packets(
    path: str, container: av.container.InputContainer, stream: av.AudioStream
) -> Iterator[av.Packet]:
    """The packets that have a time, in ticks, as an mp4 file holds them. (A file's own unit may be a whole packet.)"""
    remove_headers = _header_remover(path, stream)
    for item in read_packets(container, stream):
        if isinstance(item, av.Packet) and item.size and item.pts is not None:
            times = (item.pts, item.pts if item.dts is None else item.dts, item.duration or 0)
            ticks = [round(time * item.time_base / TICK) for time in times]
            for packet in remove_headers(item):
                packet.time_base = TICK
                packet.pts, packet.dts, packet.duration = ticks
                yield packet


def _header_remover(path: str, stream: av.AudioStream) -> Callable[[av.Packet], list[av.Packet]]:
    """Where each packet of AAC has a header of its own, as in transport streams, the same without it. What has none is
    left out, with one warning."""
    if stream.codec_context.name != "aac" or stream.codec_context.extradata:
        return lambda packet: [packet]
    bitstream_filter = BitStreamFilterContext("aac_adtstoasc", stream)

    is_told = False

    def remove(packet: av.Packet) -> list[av.Packet]:
        nonlocal is_told
        try:
            return bitstream_filter.filter(packet)
        except av.error.FFmpegError:
            if not is_told:
                logger.warning("%s: packets of its sound (aac) are damaged or without a header, and left out", path)
            is_told = True
            return []

    return remove


def _find_sound(container: av.container.InputContainer, path: str) -> av.AudioStream | None:
    """The main sound of a file, if it has one that an mp4 can hold."""
    stream = container.streams.best("audio") if container.streams.audio else None
    if stream is None:
        return None
    try:
        with av.open(io.BytesIO(), "w", format="mp4") as trial:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
    except (av.error.FFmpegError, ValueError) as error:
        name = stream.codec_context.name if stream.codec_context else "an unknown codec"
        logger.warning("%s: its sound (%s) is left out, as an mp4 file cannot hold it (%s)", path, name, error)
        return None
    return stream
