"""Writing mp4 files that are complete, or end early but cleanly, or are absent."""

from __future__ import annotations

import errno
import functools
import logging
import os
from collections import deque
from collections.abc import Iterable
from fractions import Fraction

import av
import numpy as np
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from ..errors import DISK_FULL, VideoWriteError
from ..files import remove_if_there
from .container import ignore_log
from .file_claim import Claim
from .sound_copy import SoundCopy

# H.264 plays everywhere, also in browsers; some builds of FFmpeg lack its encoders, but none lacks MPEG-4.
# Without B-frames, as fragments cannot say that the first frame is shown later than it is decoded. The encoder looks
# one frame ahead and waits for no more, so that what was given is in the file soon. ("cfr" changes no times.)
ENCODERS = {
    "libx264": {"preset": "veryfast", "crf": "22", "bf": "0", "rc-lookahead": "1", "x264-params": "force-cfr=1"},
    "libopenh264": {},
    "mpeg4": {"qscale": "4"},
}
FALLBACK = "mpeg4"
SUFFIXES = (".mp4", ".m4v", ".mov")
FRAGMENTS, WHOLE_IN_THE_END, WAITING = "frag_keyframe", "hybrid_fragmented", "delay_moov"
"""While it is written, the file consists of fragments that each can be played, so that what is there is never lost;
closing it makes an ordinary file of them. Its header waits for the first fragment, to say when the sound begins, and
not to stretch its first packet up to there."""
IS_OLD_FFMPEG = av.library_versions["libavformat"] < (62,)
"""Before FFmpeg 8, a file with a header that waited does not play once it was made an ordinary one."""
FLUSH_PACKETS = 0x0200
"""FFmpeg's flag: every fragment is written to the disk when it is complete, and an error shows then."""
FIRST_KEY_FRAMES = 2
"""A fragment is written when the next one begins, so the second frame begins one."""
KEYFRAME_SECONDS = 1
CLOCK = Fraction(1, 60_000)
"""Seconds per unit of the written time stamps: the usual frame rates are exact in it, and MPEG-4 allows no smaller."""
BT709 = 1
"""The number of BT.709 among primaries, transfers and matrices."""

logger = logging.getLogger(__name__)


class VideoWriter:
    """A context manager that writes BGR frames (H, W, 3) of one size to an mp4 file, each at its own time.

    The file appears under its name when the context ends well. After an error or an interruption nothing is left, or
    with `keep_partial` the frames up to there, as a file that plays. Odd sizes lose their last row or column, as the
    codecs want even ones. The written video begins with its first frame.
    """

    def __init__(
        self,
        path: str,
        fps: float,
        *,
        keep_partial: bool = False,
        pixel_aspect: Fraction = Fraction(1),
        sound: SoundCopy | None = None,
    ) -> None:
        """
        Args:
            fps: frames per second, on average; frames that come without a time are so far apart.
            keep_partial: keep what was written when something goes wrong.
            pixel_aspect: width of a pixel by its height, when it is shown.
            sound: what is heard while the frames are shown; closed by this writer.
        """
        self.path = os.path.abspath(path)
        self.fps = fps
        self.keep_partial = keep_partial
        self.frames = 0
        """Frames written so far."""
        folder, name = os.path.split(self.path)
        stem, suffix = os.path.splitext(name)
        if suffix.lower() not in SUFFIXES:
            raise VideoWriteError(f"{path}: videos are written as {', '.join(SUFFIXES)}; give the file such a name")
        self._beginning = os.path.join(folder, f".{name}.tmp")
        self._temporary = os.path.join(folder, f"{stem}.part{suffix}")
        self._whole_bytes = 0
        """Its size at the end of the last fragment."""
        self._claim: Claim | None = None
        self._container: av.container.OutputContainer | None = None
        self._is_broken = False
        """It could not be written to, and must not be used any more: FFmpeg has given its parts back."""
        self._is_writing = False
        """Inside `write`; where that was interrupted, what the encoder still holds may lack its predecessor."""
        self._sound = sound
        self._pixel_aspect = pixel_aspect
        self._reformatter = VideoReformatter()
        self._size = (0, 0)
        self._begin: float | None = None
        self._last_time = self._next_key = -1
        self._end = 0.0
        self._durations: deque[int] = deque()
        """Of the frames that the encoder has, in units of the written time stamps."""

    def __enter__(self) -> VideoWriter:
        try:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            for path in (self._beginning, self._temporary):
                if os.path.isdir(path):
                    raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
            self._claim = Claim(self._beginning)
            for path in (self._beginning, self._temporary):  # of a process that was killed
                remove_if_there(path)
        except OSError as error:
            raise VideoWriteError(f"{self.path}: cannot be written to ({error.strerror})") from error
        return self

    def write(self, image: np.ndarray, seconds: float | None = None, duration: float = 0.0) -> None:
        """Append a frame.

        Args:
            seconds: when it is shown. The first frame's time is where the video begins.
            duration: seconds that it is shown, for the last frame; 0 where that is not known.

        Raises VideoWriteError if it differs in size from the first, is a single pixel wide or high, or if the disk is
        full.
        """
        height, width = (length - length % 2 for length in image.shape[:2])
        if not (width and height):
            found = f"{image.shape[1]} x {image.shape[0]}"
            raise VideoWriteError(f"{self.path}: frames of {found} pixels are too small; a video has at least 2 x 2")
        seconds = self.frames / self.fps if seconds is None else seconds
        if self._container is None:
            self._size, self._begin = (width, height), seconds
            self._open()
        if (width, height) != self._size:
            raise VideoWriteError(
                f"{self.path}: frame {self.frames} is {width} x {height} pixels, the first was "
                f"{self._size[0]} x {self._size[1]}"
            )
        self._is_writing = True
        self._end = seconds + (duration or 1 / self.fps)
        self._copy_sound(seconds)
        self._encode(self._make_frame(image[:height, :width], seconds, self._end - seconds))
        self.frames += 1
        self._show_when_it_plays()
        self._is_writing = False

    def _make_frame(self, image: np.ndarray, seconds: float, duration: float) -> av.VideoFrame:
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24")
        frame = self._reformatter.reformat(
            frame, format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        frame.time_base = CLOCK
        # A camera's clock may stand still.
        frame.pts = self._last_time = max(self._last_time + 1, round((seconds - self._begin) / CLOCK))
        self._durations.append(max(1, round(duration / CLOCK)))
        if self.frames < FIRST_KEY_FRAMES or frame.pts >= self._next_key:  # by time, as frames may come slowly
            frame.pict_type = PictureType.I
            self._next_key = frame.pts + round(KEYFRAME_SECONDS / CLOCK)
        return frame

    def __exit__(self, error_type: type | None, *rest: object) -> None:
        try:
            failure = self._finish()
            early = error_type is not None or failure is not None
            if self.frames and (self.keep_partial or not early) and self._plays():
                os.replace(self._file(), self.path)
                if early:
                    logger.warning("%s: ends early; what was written up to there plays", self.path)
            if error_type is None and failure is not None:
                raise failure
        finally:
            for path in (self._beginning, self._temporary):
                remove_if_there(path)
            self._claim.release()
            if self._sound is not None:
                self._sound.close()

    def _finish(self) -> VideoWriteError | None:
        """Write what the encoder still holds, and the index; returns what went wrong."""
        if self._container is None:
            return VideoWriteError(f"{self.path}: no frame was written")
        failure = None
        whole = not (self._is_broken or self._is_writing)
        rest = [lambda: self._encode(None), lambda: self._copy_sound(self._end)] if whole else []
        # Closed in any case: PyAV would otherwise do so when the container is collected. Behind an error, FFmpeg writes
        # nothing any more.
        for step in (*rest, self._close):
            try:
                step()
            except VideoWriteError as error:
                failure = failure or error
        self._container = None
        return failure

    def _plays(self) -> bool:
        """Whether the file plays; without an index at its end, what it has after its last fragment is cut off."""
        if not self._is_broken:
            return True
        if self._file() == self._temporary:
            os.truncate(self._temporary, self._whole_bytes)
        return self._file() == self._temporary

    def _file(self) -> str:
        """Under which name the file is there: the second from when it plays."""
        return self._temporary if os.path.exists(self._temporary) else self._beginning

    def _open(self) -> None:
        try:
            self._container = av.open(f"file:{self._beginning}", "w", format="mp4", options=self._options())
            self._container.flags |= FLUSH_PACKETS
            self._stream = self._add_stream(self._container)
            if self._sound is not None:
                self._sound.begin(self._container, self._begin)
        except (OSError, ValueError, av.error.FFmpegError) as error:
            raise VideoWriteError(f"{self.path}: cannot be written as a video ({error})") from error

    def _options(self) -> dict[str, str]:
        """How FFmpeg writes the file. An old one leaves a file with sound in fragments, which players take too."""
        flags = [FRAGMENTS, WHOLE_IN_THE_END, WAITING]
        if IS_OLD_FFMPEG:
            flags.remove(WAITING if self._sound is None else WHOLE_IN_THE_END)
        return {"movflags": "+".join(flags), "movie_timescale": "60000"}

    def _add_stream(self, container: av.container.OutputContainer) -> av.VideoStream:
        for name, options in ENCODERS.items():
            if name not in av.codecs_available:
                continue
            if name == FALLBACK:
                say_once("this FFmpeg cannot encode H.264: videos are MPEG-4, which browsers may not play")
            stream = container.add_stream(name, rate=Fraction(self.fps).limit_denominator(1001), options=options)
            stream.width, stream.height = self._size
            stream.pix_fmt = "yuv420p"
            context = stream.codec_context
            context.time_base = CLOCK
            context.sample_aspect_ratio = self._pixel_aspect.limit_denominator(255)
            context.color_primaries = context.color_trc = context.colorspace = BT709
            context.color_range = ColorRange.MPEG
            # In this thread, between the model's frames, and not beside them where it would slow them down.
            context.thread_count = 1
            return stream
        raise VideoWriteError(f"{self.path}: this FFmpeg has none of the encoders {', '.join(ENCODERS)}")

    def _encode(self, frame: av.VideoFrame | None) -> None:
        try:
            ignore_log()
            packets = self._stream.encode(frame)
        except (OSError, av.error.FFmpegError) as error:
            raise VideoWriteError(f"{self.path}: cannot be encoded ({error})") from error
        for packet in packets:
            packet.duration = self._durations.popleft()
        self._mux(packets)

    def _copy_sound(self, until: float) -> None:
        if self._sound is not None:
            self._mux(self._sound.packets_until(until))

    def _mux(self, packets: Iterable[av.Packet]) -> None:
        try:
            for packet in packets:
                self._container.mux(packet)
                self._whole_bytes = os.path.getsize(self._file()) if os.path.exists(self._file()) else 0
        except (OSError, av.error.FFmpegError) as error:
            self._is_broken = True
            raise VideoWriteError(f"{self.path}: cannot be written any further ({_reason(error)})") from error

    def _close(self) -> None:
        try:
            self._container.close()
        except (OSError, av.error.FFmpegError) as error:
            self._is_broken = True
            raise VideoWriteError(f"{self.path}: cannot be written any further ({_reason(error)})") from error

    def _show_when_it_plays(self) -> None:
        """Give the file its temporary name as soon as a fragment is in it."""
        if os.path.exists(self._beginning):
            with open(self._beginning, "rb") as file:
                plays = b"moov" in file.read()
            if plays:
                os.replace(self._beginning, self._temporary)


def _reason(error: OSError) -> str:
    return "the disk is full" if error.errno in DISK_FULL else error.strerror or str(error)


@functools.cache
def say_once(message: str) -> None:
    """Log a message the first time it comes up."""
    logger.warning(message)
