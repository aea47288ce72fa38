"""Frames by number and in order, with their times, of all kinds of files that are whole."""

from __future__ import annotations

import gc
import os
import shutil
import struct
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from eventful_vitdet.errors import VideoReadError
from eventful_vitdet.video import VideoFile, decoding, iterate_frames, probe_video, read_frame, video_file
from eventful_vitdet.video.container import decode_packet, video_stream
from eventful_vitdet.video.frame_images import display_matrix
from eventful_vitdet.video.frame_index import FrameClock
from PIL import Image

from .encoded_videos import FRAMES, GOP, HEIGHT, WIDTH, add_sound, encode, number_in, numbered_image

MILLISECOND = Fraction(1, 1000)
KINDS = {
    "h264.mp4": {},
    "h264.ts": {},
    "h264.mkv": {},
    "h264.flv": {},
    "h264.avi": {},  # without the time stamps that frames predicted from later ones need
    "raw.h264": {"format": "h264"},  # without any, but with a frame rate
    "fragments.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "open_gop.mp4": {"options": {"x264-params": "open-gop=1:keyint=12:bframes=3:b-pyramid=normal"}},
    "open_gop.ts": {"options": {"x264-params": "open-gop=1:keyint=12:bframes=3"}},
    "intra_refresh.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=12:bframes=0"}},
    "interlaced.ts": {"options": {"x264-params": "interlaced=1:tff=1"}},
    "ten_bits.mp4": {"pixels": "yuv420p10le"},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "keyint=12:open-gop=1:log-level=none"}},
    "hevc.ts": {"codec": "libx265", "options": {"x265-params": "keyint=12:open-gop=1:log-level=none"}},
    "mpeg2.ts": {"codec": "mpeg2video", "b_frames": 2},
    "mpeg2.mpg": {"codec": "mpeg2video", "b_frames": 2},
    "mpeg2_interlaced.mpg": {"codec": "mpeg2video", "b_frames": 2, "options": {"flags": "+ilme+ildct"}},
    "mpeg4.mp4": {"codec": "mpeg4", "b_frames": 2},
    "mpeg4.avi": {"codec": "mpeg4", "b_frames": 2},
    "mjpeg.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "vp8.webm": {"codec": "libvpx"},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}},
    "alpha.webm": {"codec": "libvpx-vp9", "pixels": "yuva420p", "options": {"cpu-used": "8", "auto-alt-ref": "0"}},
    "alpha.mov": {"codec": "png", "pixels": "rgba"},
    "prores.mov": {"codec": "prores_ks", "pixels": "yuv422p10le"},
    "lossless.mkv": {"codec": "ffv1"},
}


@pytest.mark.parametrize("name", KINDS)
def test_frames_in_order_and_by_number(tmp_path, name):
    path = encode(tmp_path / name, **KINDS[name])
    frames = list(iterate_frames(str(path)))
    assert [frame.number for frame in frames] == list(range(FRAMES))
    assert [number_in(frame.image) for frame in frames] == list(range(FRAMES))
    assert all(frame.image.shape == (HEIGHT, WIDTH, 3) and frame.image.dtype == np.uint8 for frame in frames)
    times = [frame.seconds - frames[0].seconds for frame in frames]
    assert times == pytest.approx([number / 30 for number in range(FRAMES)], abs=0.002)
    for number in (GOP, GOP - 1, 0, FRAMES - 1, GOP + 1, 2 * GOP - 1, 20):
        found = read_frame(str(path), number)
        assert (found.number, found.seconds) == (number, frames[number].seconds)
        assert np.array_equal(found.image, frames[number].image)
    assert [frame.number for frame in iterate_frames(str(path), start=17, every=5)] == [17, 22, 27, 32, 37]
    assert list(iterate_frames(str(path), start=FRAMES)) == []
    assert VideoFile(str(path)).index.num_frames == FRAMES


def test_time_stamps_that_depend_on_where_reading_begins(tmp_path):
    """In an MPEG-1 stream most frames have no time of their own; after some jumps FFmpeg is one frame off."""
    path = str(encode(tmp_path / "v.mpg", "mpeg1video", format="mpeg", fps=25))
    assert [number_in(read_frame(path, number).image) for number in range(FRAMES)] == list(range(FRAMES))
    for start in range(FRAMES):
        frames = [(frame.number, number_in(frame.image)) for frame in iterate_frames(path, start)]
        assert frames == [(number, number) for number in range(start, FRAMES)]


@pytest.mark.parametrize(
    "name", ["h264.mp4", "h264.mkv", "h264.ts", "h264.flv", "fragments.mp4", "open_gop.mp4", "hevc.ts"]
)
def test_a_jump_goes_to_the_nearest_key_frame(tmp_path, monkeypatch, name):
    file = VideoFile(str(encode(tmp_path / name, **KINDS[name])))
    decoded = []

    def decode(stream, item):
        decoded.append(item)
        return decode_packet(stream, item)

    monkeypatch.setattr(decoding, "decode_packet", decode)
    monkeypatch.setattr(
        decoding, "video_stream", lambda container, path, threads, strict: video_stream(container, path, threads=1)
    )
    assert file.read(2 * GOP).number == 2 * GOP
    assert len(decoded) < GOP


UNEVEN = [0.0, 0.033, 0.066, 0.1, 0.6, 0.7, 0.733, 2.5, 2.533, 2.6, 2.633, 4.0, 4.033, 4.1, 9.0, 9.033, 9.066]


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        *(("vfr.mp4", "libx264"), ("vfr.ts", "libx264"), ("vfr.mkv", "libx264"), ("vfr.webm", "libvpx")),
        *(("vfr.webm", "libvpx-vp9"), ("vfr.mpg", "mpeg2video"), ("vfr.flv", "libx264")),
    ],
)
def test_variable_frame_rates(tmp_path, name, codec):
    # Program streams have no time stamps for frames that begin in the same block of 2 KB as another.
    options = {"options": {"qscale": "1"}, "size": (640, 480)} if codec == "mpeg2video" else {}
    tick = Fraction(1, 30) if codec == "mpeg2video" else MILLISECOND
    uneven = [round(second / tick) * tick for second in UNEVEN]
    path = encode(tmp_path / name, codec, seconds=uneven, tick=tick, gop=5, **options)
    frames = list(iterate_frames(str(path)))
    assert [number_in(frame.image) for frame in frames] == list(range(len(UNEVEN)))
    times = [frame.seconds - frames[0].seconds for frame in frames]
    assert times == pytest.approx([float(second) for second in uneven], abs=0.04 if "mpg" in name else 0.0011)
    for number in reversed(range(len(UNEVEN))):
        assert number_in(read_frame(str(path), number).image) == number
        first = next(iterate_frames(str(path), start=number))
        assert (first.number, number_in(first.image)) == (number, number)


def test_times_are_the_files_own_where_they_begin_late(tmp_path):
    late = [second + 0.5 for second in UNEVEN]
    path = encode(tmp_path / "v.mkv", seconds=late, tick=MILLISECOND, b_frames=0)
    assert [frame.seconds for frame in iterate_frames(str(path))] == pytest.approx(late, abs=0.0011)
    # The clock of a transport stream begins anywhere.
    path = encode(tmp_path / "v.ts", seconds=late, tick=MILLISECOND, container_options={"output_ts_offset": "5000"})
    assert [frame.seconds for frame in iterate_frames(str(path))] == pytest.approx(UNEVEN, abs=0.0011)


def test_pictures_that_are_rare_beside_a_sound(tmp_path):
    pictures = encode(tmp_path / "v.mkv", "mpeg4", seconds=[100.0 * i for i in range(5)], tick=MILLISECOND)
    path = add_sound(tmp_path / "rare.mkv", pictures, codec="pcm_s16le", seconds=401)
    with av.open(str(path)) as container:
        assert sum(packet.stream.type == "audio" for packet in container.demux()) > 4 * 4096
    frames = list(iterate_frames(str(path)))
    assert [number_in(frame.image) for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.seconds for frame in frames] == pytest.approx([0, 100, 200, 300, 400], abs=0.002)
    assert number_in(read_frame(str(path), 3).image) == 3


def test_a_recording_that_begins_between_key_frames(tmp_path):
    whole = encode(tmp_path / "v.ts")
    cut = tmp_path / "cut.ts"
    cut.write_bytes(whole.read_bytes()[188 * 15 :])
    frames = list(iterate_frames(str(cut)))
    assert [number_in(frame.image) for frame in frames] == list(range(GOP, FRAMES))  # what can be decoded
    assert [frame.number for frame in frames] == list(range(FRAMES - GOP))
    assert all(number_in(read_frame(str(cut), number).image) == GOP + number for number in (0, 5, 27))


def test_two_pictures_in_one_packet(tmp_path):
    index = VideoFile(str(encode(tmp_path / "v.mkv", fps=25))).index  # in milliseconds
    clock = FrameClock(index)
    shown = (0, 40, 120, 80, 160, 240, 200, 280)  # as FFmpeg says of MPEG-4 with "packed B-frames"
    decoded = (0, 40, 80, 120, 160, 200, 240, None)
    seconds = [clock.seconds(SimpleNamespace(pts=pts, dts=dts)) for pts, dts in zip(shown, decoded)]
    assert seconds == pytest.approx([0, 0.04, 0.12, 0.12, 0.16, 0.2, 0.24, 0.28])


def test_recordings_put_behind_each_other(tmp_path):
    part = encode(tmp_path / "v.ts").read_bytes()
    path = tmp_path / "twice.ts"
    path.write_bytes(2 * part)
    frames = list(iterate_frames(str(path)))  # and nothing is called damaged
    assert [number_in(frame.image) for frame in frames] == 2 * list(range(FRAMES))
    times = [frame.seconds for frame in frames]
    assert times == pytest.approx([number / 30 for number in range(2 * FRAMES)], abs=0.002)
    assert [number_in(read_frame(str(path), number).image) for number in (3, FRAMES + 3, 60)] == [3, 3, 20]


def test_recordings_of_ogg_put_behind_each_other(tmp_path):
    part = encode(tmp_path / "v.ogv", "libvpx", format="ogg").read_bytes()
    path = tmp_path / "twice.ogv"
    path.write_bytes(2 * part)
    frames = list(iterate_frames(str(path)))  # and the second one's headers are not called damaged
    assert [number_in(frame.image) for frame in frames] == 2 * list(range(FRAMES))
    times = [frame.seconds for frame in frames]
    assert times == pytest.approx([number / 30 for number in range(2 * FRAMES)], abs=0.002)
    assert number_in(read_frame(str(path), FRAMES + 3).image) == 3


@pytest.mark.parametrize("end", [b"", b"--ffmpeg--\r\n"])
def test_a_camera_s_stream_that_was_saved(tmp_path, end):
    path = encode(tmp_path / "v.mjpeg", "mjpeg", pixels="yuvj420p", format="mpjpeg")
    boundary = b"--ffmpeg\r\n"
    content = path.read_bytes()
    assert content.endswith(boundary)
    path.write_bytes(content[: -len(boundary)] + (end or boundary))
    frames = list(iterate_frames(str(path)))
    assert [number_in(frame.image) for frame in frames] == list(range(FRAMES))
    # What lacks in the middle is told still.
    path.write_bytes(content.replace(boundary, b"??ffmpeg??", 20).replace(b"??ffmpeg??", boundary, 19))
    with pytest.raises(VideoReadError, match="the video is damaged"):
        list(iterate_frames(str(path)))


def patch_box(path: Path, box: bytes, offset: int, data: bytes) -> None:
    """Overwrite a part of an mp4 file, from so many bytes behind a box's name on."""
    content = bytearray(path.read_bytes())
    place = content.index(box) + len(box) + offset
    content[place : place + len(data)] = data
    path.write_bytes(bytes(content))


def test_edit_lists(tmp_path):
    path = encode(tmp_path / "v.mp4")
    with av.open(str(path)) as container:
        tick = container.streams.video[0].time_base
    # Half a second from the tenth frame on: not a key frame, and not the end. Two frames are the delay of the first.
    patch_box(path, b"elst", 8, struct.pack(">Ii", 500, int(Fraction(12, 30) / tick)))
    frames = list(iterate_frames(str(path)))
    assert [number_in(frame.image) for frame in frames] == list(range(10, 25))
    assert [frame.seconds for frame in frames] == pytest.approx([i / 30 for i in range(15)], abs=0.002)
    assert [number_in(read_frame(str(path), number).image) for number in (14, 0, 7)] == [24, 10, 17]


MATRICES = {
    "90 degrees": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "180 degrees": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    "270 degrees": ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
    "mirrored": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda image: image[::-1]),
    "transposed": ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
    "transposed and turned": ((0, -1, -1, 0), lambda image: np.rot90(image, 2).swapaxes(0, 1)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_images_are_upright(tmp_path, name):
    (a, b, c, d), turn = MATRICES[name]
    path = encode(tmp_path / "v.mp4", count=3, prepare=lambda stream: set_aspect(stream, Fraction(4, 3)))
    wanted = turn(read_frame(str(path), 1).image)
    patch_box(path, b"tkhd", 40, struct.pack(">5i", a << 16, b << 16, 0, c << 16, d << 16))
    image = read_frame(str(path), 1).image
    assert np.array_equal(image, wanted) and image.flags.c_contiguous
    info = probe_video(str(path))
    assert (info.height, info.width) == wanted.shape[:2]
    turned = wanted.shape[:2] != (HEIGHT, WIDTH)
    assert VideoFile(str(path)).index.pixel_aspect == (Fraction(3, 4) if turned else Fraction(4, 3))


@pytest.mark.parametrize("name", ["90 degrees", "180 degrees", "270 degrees"])
def test_side_data_of_a_type_that_is_not_known(tmp_path, name):
    """PyAV then gives none at all."""

    class Frame:
        def __init__(self, frame: av.VideoFrame) -> None:
            self.rotation = frame.rotation

        @property
        def side_data(self) -> None:
            raise ValueError("31 is not a valid Type")

    (a, b, c, d), _ = MATRICES[name]
    path = encode(tmp_path / "v.mp4", count=3)
    patch_box(path, b"tkhd", 40, struct.pack(">5i", a << 16, b << 16, 0, c << 16, d << 16))
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert display_matrix(frame) == display_matrix(Frame(frame)) == (a << 16, b << 16, c << 16, d << 16)


@pytest.mark.parametrize(("orientation", "shown"), [(1, (24, 40)), (6, (40, 24))])
def test_a_picture_with_exif_data(tmp_path, orientation, shown):
    """As a video, which it is at an address."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (40, 24)).save(tmp_path / "a.jpg", exif=exif)
    ((_, _, image),) = iterate_frames(str(tmp_path / "a.jpg"))
    assert image.shape[:2] in (shown, (24, 40))  # older FFmpegs know of no orientation


def set_aspect(stream: av.VideoStream, aspect: Fraction) -> None:
    stream.codec_context.sample_aspect_ratio = aspect


COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40)], np.uint8)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", ["ITU601", "ITU709"])
@pytest.mark.parametrize("pixels", ["yuv444p", "yuv420p10le"])
def test_colours_are_those_that_the_file_defines(tmp_path, matrix, full, pixels):
    image = np.repeat(np.repeat(COLOURS[None], 32, axis=0), 32, axis=1)
    path = str(tmp_path / "v.mp4")
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"qp": "1"})
        stream.width, stream.height, stream.pix_fmt = image.shape[1], image.shape[0], pixels
        context = stream.codec_context
        context.colorspace = 1 if matrix == "ITU709" else 6
        context.color_range = color_range = 2 if full else 1
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame = frame.reformat(format=pixels, dst_colorspace=matrix, dst_color_range=color_range)
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    shown = read_frame(path, 0).image[16, 16::32]
    assert np.abs(shown.astype(int) - COLOURS).max() <= 5


@pytest.mark.parametrize("size", [(97, 65), (98, 66), (130, 70)])
def test_sizes_of_all_kinds(tmp_path, size):
    path = encode(tmp_path / "v.mkv", "ffv1", size=size, count=3)
    image = read_frame(str(path), 2).image
    assert image.shape == (size[1], size[0], 3) and image.flags.c_contiguous and number_in(image) == 2


def test_cropped_pictures(tmp_path):
    whole = encode(tmp_path / "whole.mp4")
    path = tmp_path / "v.mp4"
    with av.open(str(whole)) as given, av.open(str(path), "w") as taken:
        copy = taken.add_stream_from_template(given.streams.video[0])
        sides = "h264_metadata=crop_left=12:crop_right=10:crop_top=6:crop_bottom=4"
        bitstream_filter = BitStreamFilterContext(sides, given.streams.video[0], copy)
        for packet in given.demux(given.streams.video[0]):
            for changed in bitstream_filter.filter(packet if packet.size else None):
                changed.stream = copy
                taken.mux(changed)
    info = probe_video(str(path))
    assert (info.width, info.height) == (WIDTH - 22, HEIGHT - 10)
    for number in (0, 20):
        expected = read_frame(str(whole), number).image[6:-4, 12:-10]
        assert np.array_equal(read_frame(str(path), number).image, expected)


def test_grey_pictures(tmp_path):
    path = encode(tmp_path / "v.mkv", "ffv1", pixels="gray", count=3)
    image = read_frame(str(path), 2).image
    assert number_in(image) == 2 and np.array_equal(image[..., 0], image[..., 2])


def test_channels_are_rgb(tmp_path):
    path = encode(tmp_path / "v.mkv", "ffv1", pixels="bgr0", count=1)
    assert np.array_equal(read_frame(str(path), 0).image, numbered_image(0))


def test_a_frame_is_taken_as_it_is_stored_in_non_square_pixels(tmp_path):
    path = encode(tmp_path / "v.mp4", count=2, prepare=lambda stream: set_aspect(stream, Fraction(16, 11)))
    assert read_frame(str(path), 1).image.shape == (HEIGHT, WIDTH, 3)
    assert VideoFile(str(path)).index.pixel_aspect == Fraction(16, 11)


def test_the_video_among_other_streams(tmp_path):
    pictures = encode(tmp_path / "v.mp4", count=10)
    path = add_sound(tmp_path / "both.mkv", pictures, seconds=1)
    assert [number_in(frame.image) for frame in iterate_frames(str(path))] == list(range(10))
    sound = tmp_path / "sound.mka"
    with av.open(str(path)) as source, av.open(str(sound), "w", format="matroska") as target:
        copy = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.size:
                packet.stream = copy
                target.mux(packet)
    with pytest.raises(VideoReadError, match=r"sound\.mka: holds no video"):
        read_frame(str(sound), 0)


def still_packet() -> av.Packet:
    """A packet of MPEG-4 that says "as before", of which the decoder makes no frame."""
    bits = "01" + "0" + "1" + "00001" + "1" + "0" + "11111"  # predicted, no second passed, time, not coded
    return av.Packet(b"\x00\x00\x01\xb6" + int(bits, 2).to_bytes(2, "big"))


def with_a_still(path: Path) -> Path:
    """Ten frames of MPEG-4 in eleven packets, of which one, behind frame 4, shows nothing."""
    seconds = [Fraction(number, 15) for number in range(10)]
    source = encode(path.with_name("source.mp4"), "mpeg4", seconds=seconds, b_frames=0, gop=100)
    with av.open(str(source)) as whole, av.open(str(path), "w") as target:
        stream = whole.streams.video[0]
        copy = target.add_stream_from_template(stream)
        packets = [packet for packet in whole.demux(stream) if packet.size]
        still = still_packet()
        still.pts = still.dts = (packets[4].pts + packets[5].pts) // 2
        still.time_base = stream.time_base
        for packet in (*packets[:5], still, *packets[5:]):
            packet.stream = copy
            target.mux(packet)
    return path


def test_packets_that_show_nothing_have_no_number(tmp_path):
    path = str(with_a_still(tmp_path / "v.mp4"))
    assert [number_in(frame.image) for frame in iterate_frames(path)] == list(range(10))
    assert read_frame(path, 9).number == 9
    with pytest.raises(VideoReadError, match="frame 10 cannot be read; .* after 10 frames"):
        read_frame(path, 10)


# The kept index.


@pytest.fixture
def made(monkeypatch):
    """The files for which an index was made."""
    paths, make = [], video_file.make_index
    monkeypatch.setattr(video_file, "make_index", lambda path: paths.append(path) or make(path))
    return paths


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setattr("eventful_vitdet.video.index_files.user_cache_folder", lambda: str(folder))
    return folder


def forget(monkeypatch) -> None:
    """As in another process."""
    monkeypatch.setattr("eventful_vitdet.video.index_files._in_memory", {})


def test_an_index_is_made_once(tmp_path, cache, made, monkeypatch):
    path = str(encode(tmp_path / "v.mp4"))
    for _ in range(2):
        assert read_frame(path, 5).number == 5
        forget(monkeypatch)
    (kept,) = (cache / "video_index").iterdir()
    assert made == [path]
    content = kept.read_bytes()
    for damaged in (b"", content[:50], content[:-1], content[:-40] + bytes([content[-40] ^ 1]) + content[-39:]):
        kept.write_bytes(damaged)
        forget(monkeypatch)
        assert number_in(read_frame(path, 21).image) == 21
        assert kept.read_bytes() == content
    assert len(made) == 5


def test_the_index_of_a_file_that_has_changed(tmp_path, cache, made):
    path = str(encode(tmp_path / "v.mp4"))
    assert probe_video(path).num_frames == FRAMES
    shutil.copy(encode(tmp_path / "other.mp4", count=7), path)
    assert probe_video(path).num_frames == 7 and len(made) == 2
    os.utime(path, (1, 1))
    assert probe_video(path).num_frames == 7 and len(made) == 3


@pytest.mark.parametrize(
    ("name", "codec", "step"),
    [
        ("v.mp4", "libx264", "make_index"),
        ("v.webm", "libvpx", "make_index"),
        ("v.webm", "libvpx", "index_by_decoding"),
    ],
)
def test_the_index_of_a_file_that_grows_while_it_is_read(tmp_path, cache, made, monkeypatch, name, codec, step):
    path, longer = encode(tmp_path / name, codec, count=7), encode(tmp_path / f"longer_{name}", codec)
    make = getattr(video_file, step)

    def make_and_grow(*args):
        index = make(*args)
        shutil.copy(longer, path)
        return index

    with monkeypatch.context() as patch:
        patch.setattr(video_file, step, make_and_grow)
        VideoFile(str(path)).know_all_frames()
    for process in ("this", "another"):
        assert number_in(read_frame(str(path), FRAMES - 1).image) == FRAMES - 1, process
        forget(monkeypatch)
    assert made == [str(path)] * 2


def test_an_absent_file_has_no_index(tmp_path, cache):
    with pytest.raises(VideoReadError, match=r"absent\.mp4: the file does not exist"):
        VideoFile(str(tmp_path / "absent.mp4"))
    assert not cache.exists()


def test_no_place_for_an_index(tmp_path, made, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("eventful_vitdet.video.index_files.user_cache_folder", lambda: str(tmp_path / "file"))
    path = str(encode(tmp_path / "v.mp4"))
    assert [read_frame(path, number).number for number in (3, 30)] == [3, 30]
    assert made == [path]


def test_old_indices_go(tmp_path, cache, monkeypatch):
    monkeypatch.setattr("eventful_vitdet.video.index_files.MOST_FILES", 4)
    for number in range(5):
        probe_video(str(encode(tmp_path / f"{number}.mp4", count=1)))
    assert len(os.listdir(cache / "video_index")) == 3


def test_decoding_the_whole_file_for_an_index_happens_once(tmp_path, cache, monkeypatch):
    calls, make = [], video_file.index_by_decoding
    monkeypatch.setattr(video_file, "index_by_decoding", lambda *args: calls.append(args) or make(*args))
    path = str(encode(tmp_path / "v.webm", "libvpx"))
    assert len(list(iterate_frames(path))) == FRAMES and calls == []  # in order, nobody needs it
    for number in (30, 2):
        assert number_in(read_frame(path, number).image) == number
        forget(monkeypatch)
    assert len(calls) == 1


# What is no video, and names.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"no video" * 99, "cannot be opened as a video"),
        (b"\x00\x00\x00\x18ftypisom" + bytes(99), "cannot be opened as a video"),
    ],
)
def test_files_that_are_no_video(tmp_path, content, message):
    path = tmp_path / "v.mp4"
    path.write_bytes(content)
    for read in (lambda: read_frame(str(path), 0), lambda: next(iterate_frames(str(path)))):
        with pytest.raises(VideoReadError, match=f"{path}: {message}"):
            read()


def test_a_text_is_not_drawn(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("words\n" * 200)
    with pytest.raises(VideoReadError, match="notes.txt: cannot be opened as a video"):
        probe_video(str(path))


def test_absent_frames_and_files(tmp_path):
    with pytest.raises(VideoReadError, match="gone.mp4: the file does not exist"):
        read_frame(str(tmp_path / "gone.mp4"), 0)
    path = str(encode(tmp_path / "v.mp4", count=4))
    for number in (-1, 4, 10**9):
        with pytest.raises(VideoReadError, match=f"frame {number} cannot be read; .* after 4 frames"):
            read_frame(path, number)
    with pytest.raises(ValueError, match="there is no frame -1"):
        next(iterate_frames(path, start=-1))
    with pytest.raises(ValueError, match="every = 0"):
        next(iterate_frames(path, every=0))


@pytest.mark.parametrize("name", ["12:30.mp4", "http:x.mp4", "%03d.mp4", "ü b.mp4", os.fsdecode(b"\xff.mp4")])
def test_names_of_all_kinds(tmp_path, name):
    path = str(tmp_path / name)
    shutil.copy(encode(tmp_path / "v.mp4", count=3), path)
    assert number_in(read_frame(path, 2).image) == 2


def test_probe(tmp_path):
    info = probe_video(str(encode(tmp_path / "v.mp4", count=12)))
    assert (info.width, info.height, info.num_frames, info.fps) == (WIDTH, HEIGHT, 12, 30.0)


def test_leaving_early_closes_the_file(tmp_path):
    path = str(encode(tmp_path / "v.mp4"))
    before = len(os.listdir("/proc/self/fd"))
    frames = iterate_frames(path)
    next(frames)
    frames.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_memory_does_not_grow_with_the_number_of_frames(tmp_path):
    path = encode(tmp_path / "v.mp4", count=150, size=(640, 480))
    gc.collect()
    gc.disable()  # it may come late, as frames are few objects and large ones
    try:
        sizes = []
        for frame in iterate_frames(str(path)):
            if frame.number in (30, 149):
                sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    finally:
        gc.enable()
    assert sizes[1] - sizes[0] < 40 * 640 * 480  # of 120 frames of 4.5 bytes per pixel


def test_messages_of_ffmpeg_stay_off(tmp_path):
    """With them, closing a video waits for a thread of its decoder, which waits for Python's lock."""
    path = str(encode(tmp_path / "v.mp4"))
    try:
        av.logging.set_level(av.logging.ERROR)  # as torchvision may have done
        for number in range(FRAMES):
            read_frame(path, number)
        assert av.logging.get_level() is None
    finally:
        av.logging.set_level(None)


def join_videos(path: Path, *videos: Path, covers: int = 0) -> Path:
    """A file with several videos, of which the last ones are cover pictures."""
    with ExitStack() as stack:
        sources = [stack.enter_context(av.open(str(video))) for video in videos]
        target = stack.enter_context(av.open(str(path), "w"))
        copies = [target.add_stream_from_template(source.streams.video[0]) for source in sources]
        for copy in copies[len(copies) - covers :]:
            copy.disposition = av.stream.Disposition.attached_pic.value
        for source, copy in zip(sources, copies):
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = copy
                    target.mux(packet)
    return path


def test_which_of_several_videos_is_used_is_said_once(tmp_path, caplog):
    small, large = encode(tmp_path / "small.mp4"), encode(tmp_path / "large.mp4", size=(192, 128))
    path = join_videos(tmp_path / "both.mp4", small, large)
    for _ in range(2):
        assert [frame.image.shape[:2] for frame in iterate_frames(str(path))] == [(HEIGHT, WIDTH)] * FRAMES
    assert caplog.messages == [f"{path}: holds 2 videos; number 1, of {WIDTH} x {HEIGHT} pixels, is used"]


def test_a_cover_picture_is_no_second_video(tmp_path, caplog):
    cover = encode(tmp_path / "cover.mov", "png", count=1, pixels="rgb24", size=(192, 128))
    path = join_videos(tmp_path / "covered.mp4", encode(tmp_path / "video.mp4"), cover, covers=1)
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 2
    assert len(list(iterate_frames(str(path)))) == FRAMES and not caplog.messages
