"""Is a video file whole? MP4, MOV and AVI files say how long their parts are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

# Parts at the top of an MP4 or MOV file. Others, and anything behind the last of these, tell nothing.
MP4_PARTS = (b"ftyp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide", b"styp", b"sidx", b"uuid", b"pnot")


def count_missing_bytes(path: str) -> int:
    """How many bytes an MP4, MOV or AVI file lacks at its end, by the lengths of its parts.

    0 if it is whole, and for any other type of file, which is left to the decoder. Raises OSError.
    """
    length = os.path.getsize(path)
    with open(path, "rb") as file:
        start = file.read(12)
        file.seek(0)
        if start[:4] == b"RIFF" and start[8:12] == b"AVI ":
            ends = _avi_ends(file)
        elif start[4:8] in MP4_PARTS:
            ends = _mp4_ends(file)
        else:
            return 0
        return max(0, max(ends, default=0) - length)


def _avi_ends(file: BinaryIO) -> Iterator[int]:
    """Where every RIFF list of an AVI file ends; large files have several. A length of 0 was never filled in."""
    position = 0
    while len(header := file.read(8)) == 8 and header[:4] == b"RIFF":
        size = int.from_bytes(header[4:], "little")
        if size == 0:
            return
        position += 8 + size
        yield position
        position += size % 2  # the next list starts at an even position
        file.seek(position)


def _mp4_ends(file: BinaryIO) -> Iterator[int]:
    """Where every top-level part of an MP4 file ends; a part of length 0 reaches to the file's end."""
    position = 0
    while len(header := file.read(8)) == 8 and header[4:] in MP4_PARTS:
        size = int.from_bytes(header[:4], "big")
        if size == 1:
            size = int.from_bytes(file.read(8), "big")
        if size < 8:
            return
        position += size
        yield position
        file.seek(position)


def cut_to_whole_fragments(path: str) -> bool:
    """Cut an MP4 file made of fragments, whose end is missing, back to its last whole fragment, in place.

    Returns whether anything is left that plays. Raises OSError.
    """
    length = os.path.getsize(path)
    start, playable, indexed = 0, 0, False
    with open(path, "r+b") as file:
        for end in _mp4_ends(file):
            if end > length:
                break
            file.seek(start + 4)
            kind = file.read(4)
            indexed = indexed or kind == b"moov"
            if indexed and kind == b"mdat":  # the frames; what says where they are comes before them
                playable = end
            start = end
            file.seek(end)
        file.truncate(playable)
    return playable > 0
