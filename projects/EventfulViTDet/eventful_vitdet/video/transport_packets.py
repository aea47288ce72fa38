"""Whether a transport stream is whole: one packet of fixed length after the other, each beginning with the same byte.

FFmpeg finds its way again behind damage, and says nothing of what it passed over.
"""

from __future__ import annotations

import numpy as np

LENGTHS = (188, 192, 204)
"""Bytes of a packet: as broadcast, with a time stamp before it as cameras write it, with check bytes behind it."""
SYNC = 0x47
"""Its first byte."""
ROW = 4
"""So many packets in a row are no chance."""
STEP = 1 << 16
"""Packets, or bytes, that are looked at in one go."""


def find_torn_places(path: str) -> list[int]:
    """Where in a file, in bytes, something else is than the next packet, or only a part of one.

    What comes before the first packet, as in a recording that was begun anywhere, and behind the last does not count.
    """
    data = np.memmap(path, np.uint8, "r")
    places: list[int] = []
    found = _first_row(data, 0, LENGTHS)
    while found is not None:
        begin, length = found
        place = _row_end(data, begin, length)
        if place >= len(data):
            if (len(data) - begin) % length not in (0, LENGTHS[0]):  # the last one may lack what is not its own
                places.append(len(data))
            break
        found = _first_row(data, place, (length,))
        if found is not None or _is_followed_by_few(data, place, length):
            places.append(place)
    return places


def _is_followed_by_few(data: np.ndarray, place: int, length: int) -> bool:
    """Whether what begins at a place is a spoilt packet with nothing but whole ones behind it, fewer than a row."""
    if len(data) - place > ROW * length or (len(data) - place) % length:
        return False
    return bool((data[place + length :: length] == SYNC).all())


def _row_end(data: np.ndarray, begin: int, length: int) -> int:
    """The place of the first packet without its first byte; the length of the data, or more, where all have it."""
    for place in range(begin, len(data), STEP * length):
        torn = np.flatnonzero(data[place : place + STEP * length : length] != SYNC)
        if len(torn):
            return place + int(torn[0]) * length
    return len(data)


def _first_row(data: np.ndarray, begin: int, lengths: tuple[int, ...]) -> tuple[int, int] | None:
    """The place from `begin` on where a row of packets begins, and their length."""
    for start in range(begin, len(data), STEP):
        rows = []
        for length in lengths:
            count = min(STEP, len(data) - start - (ROW - 1) * length)
            if count > 0:
                firsts = [data[start + i * length : start + i * length + count] == SYNC for i in range(ROW)]
                rows += [(start + int(place), length) for place in np.flatnonzero(np.logical_and.reduce(firsts))[:1]]
        if rows:
            return min(rows)
    return None
