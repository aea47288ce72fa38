"""A HEIC picture of tiles side by side, as phones write them."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import av

from .encoded_videos import encode

TILES, SIZE = 2, 64


def write_tiled_picture(path: Path) -> Path:
    """Write a picture that consists of tiles; each of them by itself is a stream to FFmpeg."""
    header, tiles = _encode_tiles(path.with_suffix(".tiles.mp4"))
    whole = struct.pack(">4B2H", 0, 0, 0, TILES - 1, TILES * SIZE, SIZE)
    contents = [*tiles, whole]
    begin = len(_file_type()) + len(_meta(header, contents, 0)) + 8
    path.write_bytes(_file_type() + _meta(header, contents, begin) + _box(b"mdat", *contents))
    return path


def _encode_tiles(path: Path) -> tuple[bytes, list[bytes]]:
    """The header of the decoder, and the packets."""
    encode(path, "libx265", count=TILES, gop=1, size=(SIZE, SIZE), options={"x265-params": "keyint=1:log-level=none"})
    content = io.BytesIO(path.read_bytes())
    path.unlink()
    with av.open(content) as container:
        stream = container.streams.video[0]
        return stream.codec_context.extradata, [bytes(packet) for packet in container.demux(stream) if packet.size]


def _file_type() -> bytes:
    return _box(b"ftyp", b"heic", bytes(4), b"mif1heic")


def _meta(header: bytes, contents: list[bytes], begin: int) -> bytes:
    """What the file has: items 1, 2, ... are the tiles, the last one is the whole picture."""
    whole = len(contents)
    numbers = range(1, whole + 1)
    kinds = [b"hvc1"] * TILES + [b"grid"]
    names = [_full_box(b"infe", struct.pack(">2H4sx", n, 0, kind), version=2) for n, kind in zip(numbers, kinds)]
    places = b""
    for number, content in zip(numbers, contents):
        places += struct.pack(">3H2I", number, 0, 1, begin, len(content))
        begin += len(content)
    parts = struct.pack(f">{2 + TILES}H", whole, TILES, *numbers[:-1])
    sizes = [_full_box(b"ispe", struct.pack(">2I", width, SIZE)) for width in (SIZE, TILES * SIZE)]
    uses = b"".join(struct.pack(">H3B", n, 2, 1, 2) for n in numbers[:-1]) + struct.pack(">H2B", whole, 1, 3)
    properties = _box(b"ipco", _box(b"hvcC", header), *sizes)
    return _full_box(
        b"meta",
        _full_box(b"hdlr", struct.pack(">4x4s13x", b"pict")),
        _full_box(b"pitm", struct.pack(">H", whole)),
        _full_box(b"iloc", struct.pack(">2BH", 0x44, 0, whole), places),
        _full_box(b"iinf", struct.pack(">H", whole), *names),
        _full_box(b"iref", _box(b"dimg", parts)),
        _box(b"iprp", properties, _full_box(b"ipma", struct.pack(">I", whole), uses)),
    )


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def _full_box(kind: bytes, *parts: bytes, version: int = 0) -> bytes:
    return _box(kind, bytes([version, 0, 0, 0]), *parts)
