from __future__ import annotations

import logging
import os
import resource
import shutil
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from eventful_vitdet.errors import VideoWriteError
from eventful_vitdet.video import SoundCopy, VideoWriter, iterate_frames, probe_video, sound_copy
from eventful_vitdet.video import video_writer as module
from eventful_vitdet.video.json_lines import JsonLinesWriter

from .encoded_videos import add_sound, encode, loud_from, number_in, numbered_image

SIZE = (48, 64, 3)


def noise(index: int) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 256, SIZE, dtype=np.uint8)


def decode(path) -> list[np.ndarray]:
    return [frame.image for frame in iterate_frames(str(path))]


def times(path) -> list[float]:
    with av.open(str(path)) as container:
        return [round(float(frame.time), 4) for frame in container.decode(video=0)]


def test_a_written_video_is_h264_with_all_frames(tmp_path):
    path = tmp_path / "v.mp4"
    with VideoWriter(str(path), 25) as video:
        for level in range(0, 250, 10):
            video.write(np.full(SIZE, level, np.uint8))
    with av.open(str(path)) as container:
        (stream,) = container.streams
        assert (stream.codec_context.name, stream.pix_fmt, stream.frames) == ("h264", "yuv420p", 25)
        assert float(stream.duration * stream.time_base) == pytest.approx(1.0) and stream.start_time == 0
    levels = [image.mean() for image in decode(path)]
    assert np.abs(np.array(levels) - np.arange(0, 250, 10)).max() < 4


def test_frames_with_their_own_times(tmp_path):
    path = tmp_path / "v.mp4"
    with VideoWriter(str(path), 30) as video:
        for seconds in (7.0, 7.5, 7.5, 9.0, 507.25):  # a camera's clock may stand still
            video.write(noise(0), seconds, duration=0.75)
    assert times(path) == [0.0, 0.5, 0.5, 2.0, 500.25]  # from the first frame on
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert float(stream.duration * stream.time_base) == pytest.approx(501.0)


@pytest.mark.parametrize("fps", [24, 25, 30, 50, 60, 30000 / 1001])
def test_usual_frame_rates_are_exact(tmp_path, fps):
    rate = Fraction(fps).limit_denominator(1001)
    with VideoWriter(str(tmp_path / "v.mp4"), fps) as video:
        for i in range(20):
            video.write(noise(0), i / fps)
    with av.open(str(tmp_path / "v.mp4")) as container:
        assert [frame.pts * frame.time_base for frame in container.decode(video=0)] == [i / rate for i in range(20)]


def test_a_key_frame_a_second_however_slowly_frames_come(tmp_path):
    for name, fps, expected in (("camera.mp4", 30, [0, 1, 4, 5, 6, 7]), ("file.mp4", 2, [0, 1, 3, 5, 7])):
        with VideoWriter(str(tmp_path / name), fps) as video:
            for i in range(8):
                seconds = None if name == "file.mp4" else 0.4 * i if i < 5 else i
                video.write(np.full(SIZE, 100, np.uint8), seconds)
        with av.open(str(tmp_path / name)) as container:
            keys = [index for index, frame in enumerate(container.decode(video=0)) if frame.key_frame]
        assert keys == expected, name


def test_videos_slower_than_a_frame_a_second(tmp_path):
    with VideoWriter(str(tmp_path / "v.mp4"), 0.25) as video:
        for i in range(3):
            video.write(noise(i))
    assert times(tmp_path / "v.mp4") == [0, 4, 8]


def test_colours_are_tagged_and_right(tmp_path):
    path = tmp_path / "v.mp4"
    blocks = [(0, 0, 255), (0, 255, 0), (255, 0, 0), (255, 255, 255), (40, 120, 200)]  # BGR
    image = np.repeat(np.repeat(np.array([blocks], np.uint8), 64, axis=0), 64, axis=1)
    with VideoWriter(str(path), 25, pixel_aspect=Fraction(16, 11)) as video:
        for _ in range(5):
            video.write(image)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (1, 1, 1, 1)
        assert container.streams.video[0].sample_aspect_ratio == Fraction(16, 11)
    shown = decode(path)[4][32, 32::64, ::-1]
    assert np.abs(shown.astype(int) - np.array(blocks)).max() < 12


@pytest.mark.parametrize("error", [KeyboardInterrupt, VideoWriteError])
def test_what_was_written_is_kept_where_that_is_wanted(tmp_path, error, caplog):
    path = tmp_path / "v.mp4"
    path.write_text("old")
    with pytest.raises(error), VideoWriter(str(path), 25, keep_partial=True) as video:
        for i in range(40):
            video.write(noise(i))
        raise error("stop")
    assert probe_video(str(path)).num_frames == 40 == len(decode(path))
    assert os.listdir(tmp_path) == ["v.mp4"] and "ends early" in caplog.text


def test_nothing_is_kept_of_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), VideoWriter(str(tmp_path / "v.mp4"), 25, keep_partial=True):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


# Killed at any moment.


def test_a_part_plays_as_soon_as_it_is_there(tmp_path):
    part = tmp_path / "v.part.mp4"
    with VideoWriter(str(tmp_path / "v.mp4"), 25) as video:
        found = []
        for i in range(60):
            video.write(noise(i))
            if part.exists():  # as it would be left by `kill -9`
                shutil.copy(part, tmp_path / "copy.mp4")
                found.append((i, len(decode(tmp_path / "copy.mp4"))))
    assert found[0] == (2, 1)  # with the third frame
    assert all(frames >= index - 25 - 3 for index, frames in found)  # a second, and what the encoder holds


def test_with_sound_too(tmp_path):
    source = add_sound(tmp_path / "s.mp4", encode(tmp_path / "v.mp4", b_frames=0), seconds=1.4)
    part = tmp_path / "o.part.mp4"
    with VideoWriter(str(tmp_path / "o.mp4"), 30, sound=SoundCopy(str(source))) as video:
        for i in range(40):
            video.write(numbered_image(i), i / 30)
            if i == 3:
                shutil.copy(part, tmp_path / "copy.mp4")
    assert number_in(decode(tmp_path / "copy.mp4")[0]) == 0


# A full disk.


@contextmanager
def small_disk(size: int):
    """Files of this process can grow to so many bytes, also those that pytest writes; the operating system refuses
    more."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [200_000, 700_000, 1_234_567])
def test_a_full_disk_leaves_whole_fragments(tmp_path, size):
    path = tmp_path / "v.mp4"
    with (
        small_disk(size),
        pytest.raises(VideoWriteError, match=r"v\.mp4: cannot be written any further \(File too large\)"),
    ):
        with VideoWriter(str(path), 25, keep_partial=True) as video:
            for i in range(2000):
                video.write(noise(i))
    assert os.listdir(tmp_path) == ["v.mp4"]
    # A second of the last fragment is lost, and what the encoder still held.
    assert video.frames - 2 * 25 <= len(decode(path)) <= video.frames


def test_a_full_disk_and_nothing_to_keep(tmp_path):
    with small_disk(300_000), pytest.raises(VideoWriteError, match="cannot be written any further"):
        with VideoWriter(str(tmp_path / "v.mp4"), 25) as video:
            for i in range(2000):
                video.write(noise(i))
    assert os.listdir(tmp_path) == []


def test_a_disk_that_is_full_from_the_beginning(tmp_path):
    with pytest.raises(VideoWriteError, match="cannot be written any further"):
        with VideoWriter(str(tmp_path / "v.mp4"), 25, keep_partial=True) as video:
            with small_disk(0):
                for i in range(10):
                    video.write(noise(i))
    assert os.listdir(tmp_path) == []


ON_A_FULL_DISK = """
    import sys
    import numpy as np
    from eventful_vitdet.errors import VideoWriteError
    from eventful_vitdet.video import VideoWriter, iterate_frames

    folder = sys.argv[1]
    try:
        with VideoWriter(f"{folder}/v.mp4", 25, keep_partial=True) as video:
            for i in range(2000):
                video.write(np.random.default_rng(i).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    except VideoWriteError as error:
        print(error)
    print(video.frames, sum(1 for _ in iterate_frames(f"{folder}/v.mp4")))
"""


def test_a_disk_that_is_really_full(tmp_path):
    """On a disk of a megabyte in memory, which other processes do not see."""
    disk, script = tmp_path / "disk", tmp_path / "script.py"
    disk.mkdir()
    script.write_text(textwrap.dedent(ON_A_FULL_DISK))
    apart = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=1m tmpfs {disk}"
    if shutil.which("unshare") is None or subprocess.run([*apart, mount], capture_output=True).returncode:
        pytest.skip("this machine does not let its users mount a disk in memory")
    path = os.pathsep.join(str(Path(folder)) for folder in sys.path if folder)
    command = f"{mount} && {sys.executable} {script} {disk}"
    ended = subprocess.run([*apart, command], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    message, counts = ended.stdout.splitlines()[-2:]
    assert message == f"{disk}/v.mp4: cannot be written any further (the disk is full)", ended.stderr
    written, decoded = map(int, counts.split())
    assert written - 50 <= decoded <= written and decoded > 10


def test_a_missing_encoder_is_said_once_and_replaced(tmp_path, monkeypatch, caplog):
    fallback = {"no-such-encoder": {}, "mpeg4": module.ENCODERS["mpeg4"]}
    monkeypatch.setattr(module, "ENCODERS", fallback)
    module.say_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for name in ("a.mp4", "b.mp4"):
            with VideoWriter(str(tmp_path / name), 25) as video:
                for i in range(3):
                    video.write(numbered_image(i), i * 0.4)
    assert caplog.text.count("cannot encode H.264: videos are MPEG-4") == 1
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams[0].codec_context.name == "mpeg4"
    assert times(tmp_path / "a.mp4") == [0.0, 0.4, 0.8]
    assert [number_in(image) for image in decode(tmp_path / "a.mp4")] == [0, 1, 2]


def test_names_that_are_no_video(tmp_path):
    with pytest.raises(VideoWriteError, match="out.avi: videos are written as .mp4"):
        VideoWriter(str(tmp_path / "out.avi"), 25)
    (tmp_path / "v.part.mp4").mkdir()
    with pytest.raises(VideoWriteError, match="v.mp4: cannot be written to"):
        VideoWriter(str(tmp_path / "v.mp4"), 25).__enter__()


@pytest.mark.parametrize("name", ["12:30.mp4", "a b.mp4", "%d.mov"])
def test_names_of_all_kinds(tmp_path, name):
    with VideoWriter(str(tmp_path / name), 25) as video:
        video.write(numbered_image(7))
    assert os.listdir(tmp_path) == [name] and number_in(decode(tmp_path / name)[0]) == 7


def test_written_video_can_be_read(tmp_path):
    path = tmp_path / "folder" / "v.mp4"
    with VideoWriter(str(path), 25) as video:
        for level in range(0, 250, 25):
            video.write(np.full((33, 65, 3), level, np.uint8))  # odd sizes
    info = probe_video(str(path))
    assert (info.width, info.height, info.num_frames, info.fps) == (64, 32, 10, 25.0)
    assert [p.name for p in path.parent.iterdir()] == ["v.mp4"]


def test_failed_video_leaves_nothing_and_keeps_the_old_one(tmp_path):
    path = tmp_path / "v.mp4"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), VideoWriter(str(path), 25) as video:
        video.write(np.zeros((32, 64, 3), np.uint8))
        raise KeyboardInterrupt
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_bad_videos(tmp_path):
    with (
        pytest.raises(VideoWriteError, match="no frame was written"),
        VideoWriter(str(tmp_path / "a.mp4"), 25),
    ):
        pass
    with pytest.raises(VideoWriteError, match="frame 1 is 32 x 64 pixels, the first was 64 x 32"):
        with VideoWriter(str(tmp_path / "b.mp4"), 25) as video:
            video.write(np.zeros((32, 64, 3), np.uint8))
            video.write(np.zeros((64, 32, 3), np.uint8))
    with pytest.raises(VideoWriteError, match="frames of 1 x 64 pixels are too small"):
        with VideoWriter(str(tmp_path / "c.mp4"), 25) as video:
            video.write(np.zeros((64, 1, 3), np.uint8))
    (tmp_path / "file").write_text("")
    with pytest.raises(VideoWriteError, match="cannot be written to"):
        VideoWriter(str(tmp_path / "file" / "c.mp4"), 25).__enter__()
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("make", [lambda path: VideoWriter(path, 25), JsonLinesWriter])
def test_a_file_that_somebody_else_is_writing(make, tmp_path):
    """It is refused and disturbs nobody; a file left by a process that was killed is no hindrance."""
    path = str(tmp_path / "out.mp4")
    record = noise(0) if make is not JsonLinesWriter else {"frame": 0}
    with make(path) as first:
        first.write(record)
        with pytest.raises(VideoWriteError, match="out.mp4: cannot be written to .another command is writing it"):
            with make(path):
                pass
    size = os.path.getsize(path)
    left = tmp_path / ("out.part.mp4" if make is not JsonLinesWriter else "out.mp4.part")
    assert size > 0 and not left.exists()
    left.write_bytes(bytes(10**6))
    (tmp_path / ".out.mp4.tmp.lock").touch()
    (tmp_path / ".out.mp4.tmp").write_bytes(bytes(10**6))
    with make(path) as second:
        second.write(record)
    assert os.path.getsize(path) == size
    assert make is JsonLinesWriter or os.listdir(tmp_path) == ["out.mp4"]


# Sound.


@pytest.mark.parametrize("name", ["aac.mp4", "aac.ts", "opus.mkv", "pcm.avi", "flac.mkv", "mp3.mkv"])
@pytest.mark.parametrize("start", [0, 15])
def test_the_sound_is_copied_in_step(tmp_path, name, start):
    codec = {"pcm": "pcm_s16le", "opus": "libopus", "mp3": "libmp3lame"}.get(name.split(".")[0], name.split(".")[0])
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no encoder {codec}")
    pictures = encode(tmp_path / "v.mkv", "mpeg2video" if name.endswith("ts") else "mpeg4", b_frames=0)
    source = add_sound(tmp_path / name, pictures, codec=codec, seconds=4, tone_from=0.8)
    path = tmp_path / "o.mp4"
    with VideoWriter(str(path), 15, sound=SoundCopy(str(source))) as video:
        for frame in iterate_frames(str(source), start=start, every=2):
            if frame.number == start:
                first = frame.seconds
            video.write(frame.image[:, :, ::-1], frame.seconds)
    with av.open(str(path)) as container:
        copied, original = container.streams.audio[0], av.open(str(source)).streams.audio[0]
        assert copied.codec_context.name == original.codec_context.name
        # Not longer than the frames, although the source's is.
        assert float(copied.duration * copied.time_base) == pytest.approx((40 - start) / 30, abs=0.15)
    with av.open(str(source)) as container:
        clock = container.start_time / av.time_base if name.endswith("ts") else 0.0
    # In both files, as long after the first picture that is shown. AVI and Matroska round to milliseconds.
    assert loud_from(path) == pytest.approx(loud_from(source) - clock - first, abs=0.0015)
    # Players go by the sum of the packets, which begins up to one before the first picture.
    times = [(packet.pts * packet.time_base, packet.duration * packet.time_base) for packet in sound_packets(path)]
    if module.IS_OLD_FFMPEG and name in ("opus.mkv", "flac.mkv"):
        return  # it finds no length of such packets in fragments
    assert -times[0][1] <= times[0][0] <= 0
    assert times[0][0] + sum(length for _, length in times[:-1]) == pytest.approx(float(times[-1][0]), abs=0.0015)


def sound_packets(path) -> list[av.Packet]:
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(container.streams.audio[0]) if packet.size]


def test_the_sound_of_joined_recordings_continues(tmp_path):
    one = add_sound(tmp_path / "1.ts", encode(tmp_path / "v.mkv", "mpeg2video", b_frames=0), seconds=1.4, tone_from=0.8)
    joined = tmp_path / "v.ts"
    joined.write_bytes(one.read_bytes() * 2)
    with VideoWriter(str(tmp_path / "o.mp4"), 30, sound=SoundCopy(str(joined))) as video:
        for frame in iterate_frames(str(joined), start=36):
            video.write(frame.image[:, :, ::-1], frame.seconds)
    # Behind the end of the first tone, at 4 frames, the second recording's silence is heard before its tone.
    packets = sound_packets(tmp_path / "o.mp4")
    assert float(packets[-1].pts * packets[-1].time_base) == pytest.approx(44 / 30, abs=0.1)
    sizes = [packet.size for packet in packets]
    loud = [size > 1.5 * min(sizes) for size in sizes]
    begin = next(i for i in range(20, len(loud)) if loud[i])
    assert float(packets[begin].pts * packets[begin].time_base) == pytest.approx(4 / 30 + 0.8, abs=0.1)


def test_damaged_packets_of_sound_are_left_out_with_a_warning(tmp_path, caplog):
    source = add_sound(tmp_path / "s.ts", encode(tmp_path / "v.mkv", "mpeg2video", b_frames=0), seconds=1.4)
    whole, damaged = sound_packets(source)[0], av.Packet(b"\xff\xf1\xff\xff" + bytes(9))
    with av.open(str(source)) as container:
        remove_headers = sound_copy._header_remover(str(source), container.streams.audio[0])
        assert [len(remove_headers(packet)) for packet in (whole, damaged, damaged)] == [1, 0, 0]
    assert caplog.text.count("s.ts: packets of its sound (aac) are damaged or without a header, and left out") == 1


def test_a_sound_without_a_header_is_left_out_with_a_warning(tmp_path, caplog):
    source = add_sound(tmp_path / "s.mp4", encode(tmp_path / "v.mp4", b_frames=0), seconds=1.4)
    source.write_bytes(source.read_bytes().replace(b"esds", b"free"))
    with VideoWriter(str(tmp_path / "o.mp4"), 30, sound=SoundCopy(str(source))) as video:
        for frame in iterate_frames(str(source)):
            video.write(frame.image, frame.seconds)
    assert caplog.text.count("s.mp4: packets of its sound (aac) are damaged or without a header, and left out") == 1
    assert len(decode(tmp_path / "o.mp4")) == 40


def test_sounds_that_an_mp4_cannot_hold_are_left_out_with_a_warning(tmp_path, caplog):
    pictures = encode(tmp_path / "v.avi", "mpeg4", b_frames=0)
    source = add_sound(tmp_path / "s.avi", pictures, codec="adpcm_ms", seconds=1.4)
    with VideoWriter(str(tmp_path / "o.mp4"), 30, sound=SoundCopy(str(source))) as video:
        for i in range(5):
            video.write(numbered_image(i), i / 30)
    assert "s.avi: its sound (adpcm_ms) is left out, as an mp4 file cannot hold it" in caplog.text
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]


def test_a_video_without_sound_and_one_whose_sound_is_over(tmp_path):
    pictures = encode(tmp_path / "v.mp4", b_frames=0)
    short = add_sound(tmp_path / "short.mp4", pictures, seconds=0.3)
    for source in (pictures, short):
        path = tmp_path / "o.mp4"
        with VideoWriter(str(path), 30, sound=SoundCopy(str(source))) as video:
            for frame in iterate_frames(str(source), start=20):
                video.write(frame.image, frame.seconds)
        assert len(decode(path)) == 20


@pytest.mark.parametrize("place", ["_copy_sound", "_mux", "_show_when_it_plays"])
def test_an_interruption_in_the_middle_of_a_frame(tmp_path, monkeypatch, place):
    path = tmp_path / "v.mp4"
    with pytest.raises(KeyboardInterrupt), VideoWriter(str(path), 25, keep_partial=True) as video:
        for i in range(31):
            if i == 30:
                step = getattr(video, place)
                monkeypatch.setattr(video, place, lambda *args, step=step: interrupt(step, *args))
            video.write(numbered_image(i))
    shown = [number_in(image) for image in decode(path)]
    assert shown == list(range(len(shown))) and 28 <= len(shown) <= 31
    assert os.listdir(tmp_path) == ["v.mp4"]


def interrupt(step, *args) -> None:
    step(*args)
    raise KeyboardInterrupt
