"""Videos that are damaged or cut short: what can be decoded is given, under its number, and the rest is told."""

from __future__ import annotations

import logging
from dataclasses import replace

import av
import numpy as np
import pytest
from eventful_vitdet.errors import VideoReadError
from eventful_vitdet.video import (
    FileSource,
    VideoFile,
    decoding,
    frame_index,
    iterate_frames,
    probe_video,
    read_frame,
    stated_length,
)
from eventful_vitdet.video.video_writer import IS_OLD_FFMPEG

from .encoded_videos import FRAMES, GOP, add_sound, encode, number_in
from .encoded_videos import damage as zero

FASTSTART = {"container_options": {"movflags": "faststart"}, "b_frames": 0}
MJPEG = {"codec": "mjpeg", "pixels": "yuvj420p"}
PLAIN = {"b_frames": 0}


def collect(path) -> tuple[list[int], str]:
    """The numbers of the frames that are given, which each frame shows too, and the error at the end."""
    numbers, error = [], ""
    try:
        for frame in iterate_frames(str(path)):
            numbers.append(frame.number)
    except VideoReadError as raised:
        error = str(raised)
    return numbers, error


def numbers_shown(path, numbers: list[int]) -> dict[int, int]:
    """What the frames of these numbers show, as far as they are given."""
    shown = {}
    with pytest.raises(VideoReadError):
        shown.update((frame.number, number_in(frame.image)) for frame in _given(path, shown))
    return {number: shown[number] for number in numbers if number in shown}


def _given(path, shown: dict[int, int]):
    for frame in iterate_frames(str(path)):
        shown[frame.number] = number_in(frame.image)
        yield frame


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("v.mp4", {}),  # with frames that are shown before they are stored
        ("v.mp4", PLAIN),
        ("v.mkv", {}),
        ("v.avi", MJPEG),
        ("v.mp4", {"codec": "libx265", "options": {"x265-params": "keyint=12:bframes=0:log-level=none"}}),
    ],
)
def test_a_damaged_part_in_the_middle(tmp_path, name, options, caplog):
    path = encode(tmp_path / name, **options)
    zero(path, GOP + 2, packets=4)
    with caplog.at_level(logging.WARNING):
        numbers, error = collect(path)
    intact = [*range(GOP), *range(2 * GOP, FRAMES)]  # whole groups of pictures
    assert set(intact) <= set(numbers) and numbers == sorted(set(numbers)) and len(numbers) < FRAMES
    shown = numbers_shown(path, intact)
    if name != "v.avi":  # where frames have no time stamps
        assert shown == {number: number for number in intact}
    assert f"{path}: the video is damaged: " in error and " cannot be decoded, the first is frame 1" in error
    assert caplog.records and all(str(path) in record.message for record in caplog.records)


def test_parts_of_a_transport_stream_are_missing(tmp_path):
    path = encode(tmp_path / "v.ts", **PLAIN)
    content = path.read_bytes()
    middle = len(content) // 188 // 2 * 188
    path.write_bytes(content[:middle] + content[middle + 3 * 188 :])
    numbers, error = collect(path)
    assert len(numbers) >= FRAMES - GOP and "v.ts: the video is damaged: " in error
    assert number_in(read_frame(str(path), 3).image) == 3


@pytest.mark.parametrize("size", [(188, 0), (192, 4), (204, 0)])
@pytest.mark.parametrize("spoil", ["overwritten", "left out"])
def test_a_transport_stream_that_is_torn(tmp_path, size, spoil):
    length, before = size
    packets = np.frombuffer(encode(tmp_path / "whole.ts", gop=GOP, size=(320, 256)).read_bytes(), np.uint8).reshape(
        -1, 188
    )
    content = np.pad(packets, ((0, 0), (before, length - 188 - before))).tobytes()
    path = tmp_path / "v.ts"
    path.write_bytes(content)
    assert collect(path) == (list(range(FRAMES)), "")
    middle = len(content) // length // 2 * length
    some = 10 * length + 50
    path.write_bytes(content[:middle] + (b"\xaa" * some if spoil == "overwritten" else b"") + content[middle + some :])
    numbers, error = collect(path)
    assert len(numbers) < FRAMES and "v.ts: the video is damaged: " in error
    assert number_in(read_frame(str(path), 3).image) == 3
    with pytest.raises(VideoReadError, match="cannot be read by its number; the video is damaged at"):
        read_frame(str(path), len(numbers) - 1)


def test_a_transport_stream_that_ends_in_a_packet(tmp_path):
    path = encode(tmp_path / "v.ts", **PLAIN)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 188 // 2 * 188 + 50])
    assert "v.ts: the video is damaged: " in collect(path)[1]


def test_damage_is_told_with_frame_and_time(tmp_path, caplog):
    path = encode(tmp_path / "v.mp4", **PLAIN)
    zero(path, GOP + 2, packets=3)
    with caplog.at_level(logging.WARNING):
        numbers, error = collect(path)
    lost = [GOP + 2, GOP + 3, GOP + 4]
    assert [number for number in range(FRAMES) if number not in numbers] == lost
    assert caplog.messages[0] == f"{path}: frames 14 to 16 (from 0.467 s) cannot be decoded"
    assert error == (
        f"{path}: the video is damaged: 3 frames cannot be decoded, the first is frame 14 (0.467 s); "
        "7 frames can only be decoded in part, the first is frame 17 (0.567 s)"
    )
    for number in (*lost, 20, 2 * GOP - 1):
        with pytest.raises(VideoReadError, match=rf"v\.mp4: frames? (14|{number}) .*the video is damaged"):
            read_frame(str(path), number)
    for number in (0, GOP + 1, 2 * GOP, FRAMES - 1):
        assert number_in(read_frame(str(path), number).image) == number
    # From behind the damage, all is well.
    assert [frame.number for frame in iterate_frames(str(path), start=2 * GOP)] == list(range(2 * GOP, FRAMES))


def test_who_is_strict_gets_no_damaged_frame(tmp_path):
    path = encode(tmp_path / "v.mp4", **PLAIN)
    zero(path, GOP + 2, packets=3)
    given = []
    message = r"frames 14 to 16 \(from 0\.467 s\) cannot be decoded; the video is damaged"
    with pytest.raises(VideoReadError, match=message):
        for picture in VideoFile(str(path)).pictures(strict=True):
            given.append((picture.number, picture.is_sound))
    assert given == [(number, True) for number in range(GOP + 2)]
    wanted = [3, 10, 20]
    with pytest.raises(VideoReadError, match="frames 14 to 16"):
        for picture in VideoFile(str(path)).pictures_at(list(wanted)):
            assert picture.number == wanted.pop(0)
    assert wanted == [20]


def test_a_damaged_beginning(tmp_path):
    path = encode(tmp_path / "v.mp4", **PLAIN)
    zero(path, 0, packets=2)
    numbers, error = collect(path)
    assert set(range(GOP, FRAMES)) <= set(numbers) and "the first is frame 0 (0.000 s)" in error
    assert number_in(read_frame(str(path), GOP).image) == GOP


def test_a_damaged_end(tmp_path):
    path = encode(tmp_path / "v.mp4", **PLAIN)
    zero(path, FRAMES - 2, packets=2)
    numbers, error = collect(path)
    assert numbers == list(range(FRAMES - 2)) and "2 frames cannot be decoded, the first is frame 38 (1.267 s)" in error


BEGINNINGS = {".mp4": b"mdat", ".avi": b"movi", ".mkv": b"\x1f\x43\xb6\x75", ".webm": b"\x1f\x43\xb6\x75"}
"""What the frames are behind."""


@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("v.mp4", FASTSTART), ("v.mkv", {}), ("v.avi", MJPEG), ("v.avi", {"codec": "mpeg4"})),
        *(("v.webm", {"codec": "libvpx"}), ("v.webm", {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}})),
    ],
)
def test_a_file_that_is_cut_short(tmp_path, name, options, share, caplog):
    path = encode(tmp_path / name, **options)
    content = path.read_bytes()
    whole = probe_video(str(path))
    beginning = content.index(BEGINNINGS[path.suffix])
    path.write_bytes(content[: beginning + int((len(content) - beginning) * share)])
    with caplog.at_level(logging.WARNING):
        numbers, error = collect(path)
    assert numbers == list(range(len(numbers))) and len(numbers) > 3
    assert "v" + path.suffix + ": the file is cut short: " in caplog.text
    assert f"{path}: the video is damaged: the file is cut short: " in error
    assert whole.num_frames in (0, FRAMES)
    with pytest.raises(VideoReadError, match=f"{path.name}: the file is cut short"):
        next(VideoFile(str(path)).pictures(strict=True))
    with pytest.raises(VideoReadError):
        read_frame(str(path), FRAMES - 1)


def test_frames_of_a_cut_file_by_number(tmp_path):
    path = encode(tmp_path / "v.mkv", **PLAIN)
    path.write_bytes(path.read_bytes()[:-2000])
    assert number_in(read_frame(str(path), 5).image) == 5
    path = encode(tmp_path / "v.avi", **MJPEG)
    path.write_bytes(path.read_bytes()[:-9000])
    # Who knows whether a part in the middle is missing: AVI counts the frames that it finds.
    with pytest.raises(VideoReadError, match="v.avi: the file is cut short: .* of 40 frames are there"):
        read_frame(str(path), 5)


def test_a_hole_in_an_avi_file(tmp_path):
    path = encode(tmp_path / "v.avi", **MJPEG)
    content = path.read_bytes()
    third = len(content) // 3
    path.write_bytes(content[:third] + content[third + 2000 :])
    numbers, error = collect(path)
    assert 30 < len(numbers) < FRAMES and "the file is cut short: " in error
    with pytest.raises(VideoReadError, match="the file is cut short"):
        read_frame(str(path), 2)


@pytest.mark.parametrize("stated", [True, False])
def test_a_chunk_of_an_avi_file_without_its_header(tmp_path, stated):
    """FFmpeg goes on with the next one that it finds; a recorder that was killed states no number of frames."""
    path = encode(tmp_path / "v.avi", **MJPEG)
    content = bytearray(path.read_bytes())
    place = content.index(b"movi") + 4
    for _ in range(20):
        length = int.from_bytes(content[place + 4 : place + 8], "little")
        place += 8 + length + length % 2
    content[place : place + 8] = bytes(8)
    if not stated:
        for name, offset in ((b"avih", 24), (b"strh", 40)):
            at = content.index(name) + offset
            content[at : at + 4] = bytes(4)
    path.write_bytes(content)
    count = "39 of 40 frames are there" if stated else "nothing tells how many frames are lost there"
    numbers, error = collect(path)
    assert len(numbers) == FRAMES - 1
    assert f"the file is cut short: what it has at byte {place} is damaged, and {count}" in error
    with pytest.raises(VideoReadError, match=f"at byte {place} is damaged"):
        read_frame(str(path), 2)


def pad_with_zeros(content: bytes) -> bytes:
    return content + bytes(1000)


def leave_odd_lengths(content: bytes) -> bytes:
    """Without the bytes that make lengths even, as some writers do; the index at the end is dropped."""
    place = begin = content.index(b"movi") + 4
    parts = [content[:begin]]
    while content[place : place + 4] == b"00dc":
        end = place + 8 + int.from_bytes(content[place + 4 : place + 8], "little")
        parts.append(content[place:end])
        place = end + end % 2
    return b"".join(parts)


@pytest.mark.parametrize("change", [bytes, pad_with_zeros, leave_odd_lengths])
def test_avi_files_whose_chunks_can_be_followed(tmp_path, change):
    path = encode(tmp_path / "v.avi", **MJPEG)
    path.write_bytes(change(path.read_bytes()))
    assert stated_length.find_lost_chunks(str(path), 0) is None


HEVC = {"codec": "libx265", "options": {"x265-params": "keyint=12:min-keyint=12:bframes=0:log-level=none"}}


def test_what_a_decoder_of_hevc_passes_over(tmp_path):
    """It gives pictures of which a part could not be decoded, as if nothing were."""
    content = encode(tmp_path / "v.mp4", size=(320, 256), **HEVC).read_bytes()
    with av.open(str(tmp_path / "v.mp4")) as container:
        packets = [bytes(packet) for packet in container.demux(container.streams.video[0]) if packet.size]
    told = []
    for number in range(GOP + 2, GOP + 5):
        data = packets[number]
        some = np.random.default_rng(number).integers(0, 256, min(200, len(data) // 3), np.uint8).tobytes()
        place = content.index(data) + len(data) // 3
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(content[:place] + some + content[place + len(some) :])
        numbers, error = collect(path)
        wanted = f"{2 * GOP - number} frames can only be decoded in part, the first is frame {number} "
        told.append(numbers == list(range(FRAMES)) and wanted in error)
    assert any(told), told


@pytest.mark.skipif(IS_OLD_FFMPEG, reason="this FFmpeg gives pictures for those before the first key frame")
def test_a_recording_of_hevc_that_begins_in_the_midst(tmp_path):
    """What comes before the first key frame cannot be decoded, and is no damage."""
    source, path = encode(tmp_path / "v.mp4", **HEVC), tmp_path / "later.ts"
    with av.open(str(source)) as container, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(container.streams.video[0])
        for number, packet in enumerate(container.demux(container.streams.video[0])):
            if packet.size and number >= GOP // 2:
                packet.stream = stream
                target.mux(packet)
    assert collect(path) == (list(range(FRAMES - GOP)), "")


def test_wrong_additional_information_in_hevc_is_no_damage(tmp_path):
    source, path = encode(tmp_path / "v.mkv", **HEVC), tmp_path / "wrong.mkv"
    message = bytes([39 << 1, 1, 5, 255, 255, 1, 2, 3, 128])  # ends before it should
    with av.open(str(source)) as container, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(container.streams.video[0]):
            if packet.size:
                longer = av.Packet(len(message).to_bytes(4, "big") + message + bytes(packet))
                longer.pts, longer.dts, longer.time_base = packet.pts, packet.dts, packet.time_base
                longer.is_keyframe, longer.stream = packet.is_keyframe, stream
                target.mux(longer)
    assert collect(path) == (list(range(FRAMES)), "")


def test_fragments_behind_a_damaged_one(tmp_path):
    """FFmpeg ends there, and nothing in such a file states how many frames it has."""
    path = encode(tmp_path / "v.mp4", container_options={"movflags": "frag_keyframe+empty_moov"})
    content = path.read_bytes()
    place = content.index(b"moof", len(content) // 2) - 4
    path.write_bytes(content[:place] + bytes(100) + content[place + 100 :])
    numbers, error = collect(path)
    assert numbers == list(range(len(numbers))) and 0 < len(numbers) < FRAMES
    assert f"the file is cut short: its fragments from byte {place} on cannot be read" in error


def test_a_transport_stream_that_is_torn_in_its_last_packets(tmp_path):
    path = encode(tmp_path / "v.ts")
    content = path.read_bytes()
    path.write_bytes(content[: -2 * 188] + bytes(188) + content[-188:])
    assert "damaged" in collect(path)[1]


def test_more_frames_than_packets_told_of(tmp_path):
    """Of H.264 in AVI frames are counted; a packet that is there twice may be one more."""
    path = encode(tmp_path / "v.avi", b_frames=2)
    file = VideoFile(str(path))
    index = replace(file.index, seconds=file.index.seconds[:-3])
    assert index.stamps is None
    damages: list[decoding.Damage] = []
    pictures = list(decoding._CarefulDecoding(str(path), index, 0, damages.append).pictures())
    assert [picture.number for picture in pictures] == list(range(FRAMES))
    assert pictures[-1].seconds == pytest.approx(file.index.seconds[-1], abs=0.001)
    assert list(decoding._CarefulDecoding(str(path), index, FRAMES, damages.append).pictures()) == []


def test_a_sound_that_is_longer_is_no_missing_picture(tmp_path):
    path = add_sound(tmp_path / "long.mkv", encode(tmp_path / "v.mkv", count=10, **PLAIN), seconds=4)
    assert collect(path) == (list(range(10)), "")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.8)])
    numbers, error = collect(path)  # its video is whole, but who knows
    assert numbers == list(range(10)) and "the file is cut short: it ends after" in error


def riff_sizes(content: bytes) -> bytes:
    """The length of the file in place of that of what follows it."""
    return content[:4] + len(content).to_bytes(4, "little") + content[8:]


def short_free_box(content: bytes) -> bytes:
    return content + (100).to_bytes(4, "big") + b"free" + bytes(40)


@pytest.mark.parametrize(
    ("name", "options", "spoil"),
    [
        ("v.avi", MJPEG, riff_sizes),
        ("v.avi", MJPEG, lambda content: content[: content.rindex(b"idx1")]),  # a lost index
        ("v.avi", MJPEG, lambda content: content + b"\xff" * 100),
        ("v.mp4", {}, short_free_box),
        ("v.mp4", {}, lambda content: content + b"\xff" * 100),
        ("v.mkv", {}, lambda content: content[: content.rindex(b"\x1c\x53\xbb\x6b")]),  # a lost index
    ],
)
def test_files_that_are_whole_though_a_length_is_wrong(tmp_path, name, options, spoil):
    path = encode(tmp_path / name, **options)
    path.write_bytes(spoil(path.read_bytes()))
    assert collect(path) == (list(range(FRAMES)), "")
    assert [number_in(read_frame(str(path), number).image) for number in (0, 17, 39)] == [0, 17, 39]


@pytest.mark.parametrize(
    ("name", "options", "spoil", "missing"),
    [
        ("v.avi", MJPEG, riff_sizes, 8),
        ("v.mp4", {}, short_free_box, 52),
        ("v.mp4", {}, lambda content: content + b"\0\0\0\1free" + (60).to_bytes(8, "big") + bytes(40), 4),
        ("v.avi", MJPEG, bytes, 0),
        ("v.mp4", {}, bytes, 0),
        ("v.mp4", {}, lambda content: content + b"\xff" * 100, 0),
        ("v.mp4", {}, lambda content: content + bytes(100), 0),
        ("v.mkv", {}, bytes, 0),
        ("v.y4m", {"codec": "rawvideo"}, bytes, 0),  # neither of the two, though its name may be taken for a part
    ],
)
def test_a_wrong_length_is_said_once(tmp_path, caplog, name, options, spoil, missing):
    path = encode(tmp_path / name, **options)
    path.write_bytes(spoil(path.read_bytes()))
    for _ in range(2):
        read_frame(str(path), 3)
    wanted = [f"{path}: is {missing} bytes shorter than its headers say; what is there is read"] if missing else []
    assert [record.getMessage() for record in caplog.records] == wanted


def test_what_is_damaged_in_part_of_a_picture(tmp_path):
    path = encode(tmp_path / "v.avi", **MJPEG)
    content = bytearray(path.read_bytes())
    start = content.index(b"00dc", content.index(b"movi"))
    for _ in range(9):
        start = content.index(b"00dc", start + 4)
    size = int.from_bytes(content[start + 4 : start + 8], "little")
    content[start + 8 + size // 2 : start + 8 + size] = bytes(size - size // 2)  # half of the tenth picture
    path.write_bytes(bytes(content))
    numbers, error = collect(path)
    assert numbers == [number for number in range(FRAMES) if number != 9]
    assert "1 frame cannot be decoded, the first is frame 9 (0.300 s)" in error


def test_damage_where_frames_cannot_be_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(frame_index, "ONE_PACKET_A_PICTURE", frozenset())  # so that frames are only counted
    path = encode(tmp_path / "v.mp4", **PLAIN)
    zero(path, GOP + 2, packets=3)
    given = []
    with pytest.raises(VideoReadError, match=r"cannot be decoded, the first before frame 14 \(0\.467 s\)"):
        for picture in VideoFile(str(path)).pictures():
            given.append(picture)
    assert [picture.number for picture in given] == list(range(FRAMES - 3))
    assert [picture.number for picture in given if not picture.is_sound] == list(range(GOP + 2, 2 * GOP - 3))


def test_a_source_gives_all_and_tells_at_the_end(tmp_path):
    for name in ("1.mp4", "2.mp4", "3.mp4"):
        encode(tmp_path / name, **PLAIN)
    zero(tmp_path / "2.mp4", GOP + 2, packets=3)
    source = FileSource([str(tmp_path / name) for name in ("1.mp4", "2.mp4", "3.mp4")])
    seen = []
    with pytest.raises(VideoReadError, match=r"2\.mp4: the video is damaged"):
        for frame in source.frames():
            seen.append(frame)
    lost = {FRAMES + GOP + 2 + i for i in range(3)}
    assert [frame.index for frame in seen] == [index for index in range(3 * FRAMES) if index not in lost]
    assert [number_in(frame.image) for frame in seen if not frame.notice] == [
        frame.index % FRAMES for frame in seen if not frame.notice
    ]
    assert [frame.index - FRAMES for frame in seen if frame.notice == "damaged"] == list(range(GOP + 5, 2 * GOP))


def test_nothing_is_read_ahead_of_what_is_asked_for(tmp_path):
    path = encode(tmp_path / "v.mp4", **PLAIN)
    zero(path, GOP + 2, packets=3)
    frames = iterate_frames(str(path))
    assert np.array_equal(next(frames).image, read_frame(str(path), 0).image)
    frames.close()


def test_an_avi_file_that_counts_frames_which_are_as_before(tmp_path):
    source = encode(tmp_path / "v.mkv", "mpeg4", seconds=[0.2 * i for i in range(30)], b_frames=0)
    path = add_sound(tmp_path / "v.avi", source, codec="pcm_s16le", seconds=6)
    assert probe_video(str(path)).num_frames > 100  # of which most are empty
    assert collect(path) == (list(range(30)), "")
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"movi") + int(0.4 * (len(content) - content.index(b"movi")))])
    assert "the file is cut short" in collect(path)[1]


def test_an_avi_file_whose_encoder_gave_its_second_packet_late(tmp_path):
    source = encode(tmp_path / "early.avi", "mpeg4", count=20, b_frames=2)
    path = tmp_path / "v.avi"
    with av.open(str(source)) as given, av.open(str(path), "w") as taken:
        stream = given.streams.video[0]
        copy = taken.add_stream_from_template(stream)
        for number, packet in enumerate(packet for packet in given.demux(stream) if packet.size):
            packet.stream = copy
            packet.pts = packet.dts = number + 4 * (number > 0)  # as libxvid does
            taken.mux(packet)
    assert probe_video(str(path)).num_frames == 24  # of which four are empty
    assert collect(path) == (list(range(20)), "")
