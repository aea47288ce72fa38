"""Where a record's numbers come from: the files of the video, and the machine that the seconds were measured on."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from collections.abc import Iterable
from pathlib import Path

import torch

from ..data.coco_vid import Video
from ..errors import VideoReadError
from ..files import digest_ends
from ..usable_cores import usable_cores

CPU_INFO = Path("/proc/cpuinfo")


def digest_video(video: Video) -> str:
    """A digest of the files that a video's frames are read from, wherever these lie. Raises VideoReadError.

    Of a video file, its size, beginning and end; of a folder of images, their sizes.
    """
    paths = dict.fromkeys(frame["file_name"] for frame in video)
    return digest_files(paths, is_video=bool(video[0].get("is_video_file")))


def digest_files(paths: Iterable[str], *, is_video: bool) -> str:
    """The same of video files, or of images, by path."""
    digest = hashlib.blake2b(digest_size=16)
    describe = digest_ends if is_video else os.path.getsize
    for path in paths:
        try:
            digest.update(f"{describe(path)};".encode())
        except OSError as error:
            raise VideoReadError(f"{path}: cannot be read ({error.strerror})", file_name=path) from error
    return digest.hexdigest()


def describe_machine(device: torch.device) -> str:
    """What decides how fast a model runs: the GPU, and the processor with the cores that may be used."""
    host = f"{describe_processor()}, {usable_cores()} cores"
    return f"{torch.cuda.get_device_name(device)}, {host}" if device.type == "cuda" else host


@functools.cache
def describe_processor() -> str:
    """The processor's name, or where the system does not tell, its architecture."""
    lines = CPU_INFO.read_text(errors="replace").splitlines() if CPU_INFO.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
