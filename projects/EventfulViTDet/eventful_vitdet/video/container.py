"""Video files by PyAV: opened, their packets read, and decoded one by one, with errors as values."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Union

import av

from ..errors import VideoReadError

TEXT_FORMATS = frozenset({"adf", "bin", "idf", "tty", "xbin"})
"""FFmpeg would draw the letters of any text file as a video."""
LARGEST_ROW_OF_FAILURES = 16
"""After so many errors without a packet between them, a file is taken to end."""
OGG_HEADERS = (b"\x81theora", b"OVP80")
"""How packets of Ogg begin that show nothing: those between two recordings in one file are read with the pictures."""

logger = logging.getLogger(__name__)

Item = Union[av.Packet, av.error.FFmpegError, None]
"""What reading gives: a packet, what went wrong before the next one, or None at the end."""


@contextmanager
def open_container(path: str) -> Iterator[av.container.InputContainer]:
    """A video file, open. Raises VideoReadError."""
    if not os.path.isfile(path):
        raise VideoReadError(f"{path}: the file does not exist")
    if os.path.getsize(path) == 0:
        raise VideoReadError(f"{path}: the file is empty")
    try:
        # "file:" because a name may have a colon, and look like an address.
        container = av.open(f"file:{path}", metadata_errors="replace")
    except PermissionError as error:
        raise VideoReadError(f"{path}: cannot be opened ({error.strerror})") from error
    except (av.error.FFmpegError, ValueError, IndexError) as error:
        raise VideoReadError(
            f"{path}: cannot be opened as a video; it is damaged, cut short or of an unknown type"
        ) from error
    with container:
        if container.format.name in TEXT_FORMATS:
            raise VideoReadError(f"{path}: cannot be opened as a video; it is a text")
        yield container


def video_stream(
    container: av.container.InputContainer, name: str, *, threads: int = 0, strict: bool = False
) -> av.VideoStream:
    """The main video of a container, ready to be decoded.

    Args:
        name: of the file or address, for messages.
        threads: 0 takes all processors. With 1, each error belongs to the packet that was decoded last.
        strict: raise also the errors that a decoder of HEVC otherwise passes over, harmless ones among them.

    Raises VideoReadError where there is none; a cover picture is none, nor is a tile of a picture.
    """
    dependent = av.stream.Disposition.dependent
    if sum(bool(stream.disposition & dependent) for stream in container.streams.video) > 1:
        raise VideoReadError(f"{name}: is a picture of several tiles (HEIC), which cannot be read; convert it to JPEG")
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        raise VideoReadError(f"{name}: holds no video")
    best = container.streams.best("video")
    stream = best if best in streams else streams[0]
    if stream.codec_context is None:
        raise VideoReadError(f"{name}: this FFmpeg has no decoder for its video")
    if len(streams) > 1:
        say_chosen(name, len(streams), 1 + streams.index(stream), stream.width, stream.height)
    stream.thread_type = "AUTO"
    stream.codec_context.thread_count = threads
    # Otherwise what is cropped at the left is shown, unless it is as wide as the processor's vectors.
    stream.codec_context.flags |= av.codec.context.Flags.unaligned
    codec = stream.codec_context.codec.canonical_name
    if codec == "mjpeg" or (strict and codec == "hevc"):
        # Otherwise what is missing of a picture is grey, or as before, and nothing tells.
        stream.codec_context.options = {"err_detect": "explode"}
    return stream


@functools.cache
def say_chosen(name: str, count: int, number: int, width: int, height: int) -> None:
    """Log, once for each file, which of several videos is used."""
    logger.warning(
        "%s: holds %d videos; number %d, of %d x %d pixels, is used", *(name, count, number, width, height)
    )


def read_packets(container: av.container.InputContainer, *streams: av.stream.Stream) -> Iterator[Item]:
    """The packets of these streams, or of all, from where the container is, what went wrong between them, and None at
    the end."""
    items = _read_all(container, *streams)
    if container.format.name == "mpjpeg":
        return _without_end_mark(items)
    if container.format.name == "ogg":
        return (item for item in items if not _is_header(item))
    return items


def _without_end_mark(items: Iterator[Item]) -> Iterator[Item]:
    """All but an error right before the end: there FFmpeg expects another picture, as a camera's boundary promises."""
    errors: list[Item] = []
    for item in items:
        if isinstance(item, av.error.FFmpegError):
            errors.append(item)
            continue
        if item is not None or len(errors) > 1:
            yield from errors
        errors = []
        yield item


def _is_header(item: Item) -> bool:
    return isinstance(item, av.Packet) and bytes(item).startswith(OGG_HEADERS)


def _read_all(container: av.container.InputContainer, *streams: av.stream.Stream) -> Iterator[Item]:
    failures = 0
    while failures < LARGEST_ROW_OF_FAILURES:
        try:
            for packet in container.demux(*streams):
                if packet.size == 0 and packet.dts is None and packet.pts is None:
                    yield None
                    return
                failures = 0
                yield packet
        except av.error.FFmpegError as error:  # a damaged place; behind it, reading may continue
            failures += 1
            yield error
    yield None


@dataclass
class Decoded:
    """What came of decoding a packet: some earlier one's frames as a rule."""

    frames: list[av.VideoFrame] = field(default_factory=list)
    fault: str = ""
    """What went wrong."""


def ignore_log() -> None:
    """Keep FFmpeg's messages from Python's logging. Called before each packet, as others may ask for them at any time.

    A decoder's thread that has something to say waits for Python's lock, and who closes the decoder holds that lock and
    waits for the thread: for ever. Older versions of torchvision ask for the messages when they are imported.
    """
    if av.logging.get_level() is not None:
        av.logging.set_level(None)


def decode_packet(stream: av.VideoStream, item: Item) -> Decoded:
    """Decode what `read_packets` gives; at the end, all frames that the decoder still holds."""
    if isinstance(item, av.error.FFmpegError):
        return Decoded(fault=item.strerror or "cannot be read")
    if item is not None and item.size == 0:  # "as before"; a decoder would take it for the end
        return Decoded()
    ignore_log()
    try:
        return Decoded(stream.codec_context.decode(item))
    except EOFError:
        return Decoded()
    except av.error.FFmpegError as error:
        return Decoded(fault=error.strerror or "cannot be decoded")
