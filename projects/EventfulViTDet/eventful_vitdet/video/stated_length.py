"""Whether MP4 and AVI files are as long as their parts say. FFmpeg reads what is there, and does not compare."""

from __future__ import annotations

import os
from typing import BinaryIO

FIRST_BOXES = (b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"sidx", b"free", b"skip", b"wide", b"pnot", b"uuid")
"""With which of its parts an MP4 or QuickTime file begins."""


CHUNK_BYTES = 1 << 20


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
