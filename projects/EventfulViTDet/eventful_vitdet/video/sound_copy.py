"""The sound of a video file, copied as it is."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import ExitStack

import av

from .container import Item, open_container, read_packets
from .video_file import VideoFile

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
        self._packets: Iterator[Item] = read_packets(container, self._stream) if self._stream else iter(())
        self._waiting: av.Packet | None = None
        self._last = None

    def begin(self, target: av.container.OutputContainer, seconds: float) -> None:
        """Make a stream for the sound in a container; what is heard before `seconds` of the source is left out."""
        self._begin = seconds
        self._target = target.add_stream_from_template(self._stream) if self._stream else None

    def packets_until(self, seconds: float) -> Iterator[av.Packet]:
        """The next packets, up to a time of the source."""
        while self._target is not None:
            packet = self._waiting or self._next()
            self._waiting = None
            if packet is None:
                return
            begins = float(packet.pts * packet.time_base) + self._shift
            if begins >= seconds:
                self._waiting = packet
                return
            if begins >= self._begin and self._fits(packet):
                move = round((self._shift - self._begin) / packet.time_base)
                packet.pts, packet.dts = packet.pts + move, packet.dts + move
                packet.stream = self._target
                yield packet

    def _next(self) -> av.Packet | None:
        for item in self._packets:
            if item is None:
                return None
            if isinstance(item, av.Packet) and item.size and item.pts is not None:
                item.dts = item.pts if item.dts is None else item.dts
                return item
        return None

    def _fits(self, packet: av.Packet) -> bool:
        """Whether a packet is later than the last one; a container takes no others."""
        fits = self._last is None or packet.dts > self._last
        self._last = packet.dts if fits else self._last
        return fits

    def close(self) -> None:
        """Close the file."""
        self._exit.close()


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
