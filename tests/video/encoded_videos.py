"""Small videos made by PyAV. Frame n shows its number: eight cells at the top, the k-th from the left is bit k."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

WIDTH, HEIGHT, CELL = 96, 64, 12
FRAMES = 40
GOP = 12


def numbered_image(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """An RGB image (H, W, 3) uint8 with a texture that moves, and its number."""
    texture = np.random.default_rng(1).integers(60, 120, (height // 8 + 1, width // 8 + 1, 3))
    image = np.kron(texture, np.ones((8, 8, 1)))[:height, :width].astype(np.uint8)
    image = np.roll(image, 2 * number, axis=1)
    for bit in range(8):
        image[:16, bit * CELL : (bit + 1) * CELL] = 235 if number >> bit & 1 else 16
    return image


def number_in(image: np.ndarray) -> int:
    """The number that an image shows, in any channel order."""
    cells = [image[4:12, bit * CELL + 3 : bit * CELL + 9].mean() for bit in range(8)]
    return sum(1 << bit for bit, level in enumerate(cells) if level > 125)


def encode(
    path: Path,
    codec: str = "libx264",
    *,
    count: int = FRAMES,
    seconds: Sequence[float] | None = None,
    fps: int = 30,
    tick: Fraction | None = None,
    pixels: str = "yuv420p",
    size: tuple[int, int] = (WIDTH, HEIGHT),
    gop: int = GOP,
    b_frames: int | None = None,
    options: dict[str, str] | None = None,
    format: str | None = None,
    container_options: dict[str, str] | None = None,
    prepare: Callable[[av.VideoStream], object] = lambda stream: None,
) -> Path:
    """Write a video of numbered images, with a key frame every `gop` frames.

    Args:
        seconds: when each frame is shown; by default `fps` per second.
        tick: seconds per unit of the encoder's time stamps.
    """
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no encoder {codec}")
    with av.open(str(path), "w", format=format, options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        stream.codec_context.gop_size = gop
        stream.codec_context.time_base = tick or Fraction(1, fps)
        if b_frames is not None:
            stream.codec_context.max_b_frames = b_frames
        prepare(stream)
        for number in range(len(seconds) if seconds else count):
            frame = av.VideoFrame.from_ndarray(numbered_image(number, *size), format="rgb24")
            second = seconds[number] if seconds else Fraction(number, fps)
            frame.time_base = stream.codec_context.time_base
            frame.pts = round(second / frame.time_base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def add_sound(path: Path, video: Path, *, codec: str = "aac", seconds: float, tone_from: float = 0.0) -> Path:
    """Copy a video to `path` with a sound beside it: silence, then a tone."""
    rate = 48_000
    times = np.arange(round(seconds * rate)) / rate
    wave = (12_000 * np.sin(2 * np.pi * 440 * times) * (times >= tone_from)).astype(np.int16)
    with av.open(str(video)) as source, av.open(str(path), "w") as target:
        pictures = source.streams.video[0]
        copy = target.add_stream_from_template(pictures)
        sound = target.add_stream(codec, rate=rate)
        sound.codec_context.layout = "mono"
        packets = [packet for packet in source.demux(pictures) if packet.size]
        size = sound.codec_context.frame_size or 1024
        resampler = av.AudioResampler(sound.codec_context.format, "mono", rate, size)
        for start in range(0, len(wave), 4800):
            while packets and packets[0].dts * packets[0].time_base <= start / rate:
                packets[0].stream = copy
                target.mux(packets.pop(0))
            part = av.AudioFrame.from_ndarray(wave[None, start : start + 4800], format="s16", layout="mono")
            part.sample_rate, part.pts, part.time_base = rate, start, Fraction(1, rate)
            for frame in resampler.resample(part):
                target.mux(sound.encode(frame))
        for packet in packets:
            packet.stream = copy
            target.mux(packet)
        for frame in resampler.resample(None):
            target.mux(sound.encode(frame))
        target.mux(sound.encode(None))
    return path


def loud_from(path: Path) -> float:
    """The second at which the tone of a file begins."""
    with av.open(str(path)) as container:
        (stream,) = container.streams.audio
        for frame in container.decode(stream):
            samples = frame.to_ndarray().astype(np.float64).ravel()
            samples /= 1.0 if frame.format.name.startswith("flt") else 2.0**15
            loud = np.flatnonzero(np.abs(samples) > 0.05)
            if len(loud):
                return float(frame.pts * stream.time_base) + int(loud[0]) / frame.sample_rate
    raise AssertionError("the file is silent")


def damage(path: Path, number: int, *, packets: int = 1) -> None:
    """Overwrite the packets of a file from the `number`-th stored one on with zeros."""
    with av.open(str(path)) as container:
        found = [packet for packet in container.demux(container.streams.video[0]) if packet.size]
    content = bytearray(path.read_bytes())
    for packet in found[number : number + packets]:
        data = bytes(packet)
        place = content.index(data, packet.pos or 0)
        content[place : place + len(data)] = bytes(len(data))
    path.write_bytes(bytes(content))
