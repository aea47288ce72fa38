"""Lengths of files by their container, against files written by hand."""

import pytest
from eventful_vitdet.video.containers import count_missing_bytes

from .conftest import grey_frame, write_video


def part(kind: bytes, content: bytes, *, long: bool = False) -> bytes:
    if long:
        return (1).to_bytes(4, "big") + kind + (16 + len(content)).to_bytes(8, "big") + content
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def riff(kind: bytes, length: int) -> bytes:
    return b"RIFF" + (4 + length).to_bytes(4, "little") + kind + bytes(length)


FTYP = part(b"ftyp", b"isom" * 3)
MP4 = FTYP + part(b"mdat", bytes(50)) + part(b"moov", bytes(20))


@pytest.mark.parametrize(
    ("content", "missing"),
    [
        (MP4, 0),
        (MP4[:-7], 7),
        (MP4[:-40], 12),  # inside mdat; what followed it is not known
        (FTYP + part(b"mdat", bytes(50), long=True), 0),
        (FTYP + part(b"mdat", bytes(50), long=True)[:-3], 3),
        (FTYP + bytes(4) + b"mdat" + bytes(9), 0),  # a part that reaches to the end, wherever that is
        (MP4 + b"\xff" * 30, 0),  # something else behind the last part
        (riff(b"AVI ", 60), 0),
        (riff(b"AVI ", 60)[:-9], 9),
        (riff(b"AVI ", 61) + bytes(1) + riff(b"AVIX", 40), 0),
        (riff(b"AVI ", 60) + riff(b"AVIX", 40)[:-5], 5),
        (b"RIFF" + bytes(4) + b"AVI " + bytes(9), 0),  # written to a pipe: the length was never filled in
        (b"\x1a\x45\xdf\xa3" + bytes(40), 0),  # Matroska
        (b"", 0),
    ],
)
def test_by_hand(tmp_path, content, missing):
    path = tmp_path / "video"
    path.write_bytes(content)
    assert count_missing_bytes(str(path)) == missing


@pytest.mark.parametrize("codec, suffix", [("MJPG", "avi"), ("mp4v", "mp4"), ("mp4v", "mkv")])
def test_whole_videos_lack_nothing(tmp_path, codec, suffix):
    path = write_video(tmp_path / f"v.{suffix}", [grey_frame(i) for i in range(5)], codec)
    assert count_missing_bytes(str(path)) == 0
