"""Whether MP4 and AVI files are as long as their parts say, and whether the parts follow each other. FFmpeg reads what
is there, and does not compare."""

from __future__ import annotations

import mmap
import os
import re
from typing import BinaryIO

FIRST_BOXES = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"sidx", b"free", b"skip", b"wide", b"pnot", b"uuid")
"""With which of its parts an MP4 or QuickTime file begins."""
CHUNK_BYTES = 1 << 20
CHUNK_NAME = re.compile(rb"[ -~]{4}")
"""How the parts of an AVI file are called."""
STREAM_CHUNK_NAME = re.compile(rb"[0-9]{2}[a-z]{2}")
"""How those with pictures and sound are."""


def count_missing_bytes(path: str) -> int:
    """How many bytes fewer an MP4 or AVI file has than the parts that it consists of say; 0 for other files, and where
    nothing is missing. What matters may all be there: writers are wrong about lengths, too."""
    size = os.path.getsize(path)
    place = 0
    with open(path, "rb") as file:
        head = file.read(8)
        if head[:4] != b"RIFF" and head[4:] not in FIRST_BOXES:
            return 0
        while place < size:
            length = _part_length(file, place)
            if length is None:  # no part, but something behind the last one
                return 0
            place += length
    return place - size


def find_lost_fragments(path: str) -> int | None:
    """The byte of a fragmented MP4 file from which on it cannot be read, though further fragments follow; else None."""
    size, place = os.path.getsize(path), 0
    with open(path, "rb") as file:
        while place < size:
            length = _part_length(file, place)
            if length is None:
                file.seek(place)
                return place if _is_in(file, b"moof") else None
            place += length
    return None


def find_lost_chunks(path: str, stream: int) -> int | None:
    """The byte of an AVI file from which on its chunks cannot be followed, though further ones of a stream are there;
    else None."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        last = place = 0
        while _is_chunk(data, place):
            last, place = place, _next_chunk(data, place)
        if len(data) <= place <= len(data) + 1:
            return None
        broken = last if place > len(data) else place
        code = b"%02dd" % stream  # "00dc" and "00db" are pictures
        found = data.find(code, broken + 1)
        while found >= 0 and not _is_chunk(data, _next_chunk(data, found)):
            found = data.find(code, found + 1)
        return broken if found >= 0 else None


def _is_chunk(data: mmap.mmap, place: int) -> bool:
    """Whether a chunk can begin at a place: with a name of four letters."""
    return CHUNK_NAME.fullmatch(data[place : place + 4]) is not None


def _next_chunk(data: mmap.mmap, place: int) -> int:
    """Where the chunk behind that at a place begins, or the first one in it."""
    if data[place : place + 4] in (b"RIFF", b"LIST"):
        return place + 12
    end = place + 8 + int.from_bytes(data[place + 4 : place + 8], "little")
    # The byte that makes lengths even is left out by some writers.
    return end if end % 2 == 0 or STREAM_CHUNK_NAME.fullmatch(data[end : end + 4]) else end + 1


def _is_in(file: BinaryIO, word: bytes) -> bool:
    """Whether a word is in what is left of a file."""
    before = b""
    while part := file.read(CHUNK_BYTES):
        if word in before + part:
            return True
        before = part[-len(word) :]
    return False


def _part_length(file: BinaryIO, place: int) -> int | None:
    """Bytes of the part that begins at a place, its header included; None where none begins."""
    file.seek(place)
    header = file.read(16)
    if header[:4] == b"RIFF":
        length = 8 + int.from_bytes(header[4:8], "little")
        return length + length % 2
    if len(header) < 8 or not (header[4:8].isascii() and header[4:8].isalnum()):
        return None
    length = int.from_bytes(header[:4], "big")
    if length == 1:
        length = int.from_bytes(header[8:], "big")
    return length if length >= 8 else None  # 0: up to the end
