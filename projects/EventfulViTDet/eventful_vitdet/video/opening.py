"""From what a user names to a source."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path

import cv2

from ..errors import VideoReadError
from .file_source import FileSource
from .image_source import ImageSource
from .source import VideoSource
from .stream_source import NETWORK_TIMEOUT_MS, StreamSource

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "rtp", "srt")


def open_source(text: str) -> VideoSource:
    """Open what a user named.

    Args:
        text: a video file or an image, a folder or pattern (quoted `*`) of images or videos, an address such as
            rtsp://..., or the number of a camera.

    Raises VideoReadError, saying what was found and what was expected.
    """
    if re.fullmatch(r"[0-9]{1,9}", text):
        number = int(text)
        return StreamSource(f"camera {number}", lambda: cv2.VideoCapture(number))
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text)
    if scheme is not None:
        return _open_address(text, scheme[1].lower())
    if os.path.isdir(text):
        return _open_files(sorted_naturally(str(path) for path in Path(text).iterdir() if path.is_file()), text)
    if not os.path.exists(text) and glob.has_magic(text):
        return _open_files(sorted_naturally(path for path in glob.glob(text) if os.path.isfile(path)), text)
    if not os.path.exists(text):
        raise VideoReadError(
            f"{text or repr(text)}: there is no such file or folder (streams begin with rtsp:// or http://, a camera "
            "is a small number)"
        )
    return ImageSource([text], text) if is_image(text) else FileSource([text])


def _open_address(text: str, scheme: str) -> VideoSource:
    if scheme not in SCHEMES:
        raise VideoReadError(f"{text}: addresses begin with one of {', '.join(f'{s}://' for s in SCHEMES)}")
    timeouts = [
        *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, NETWORK_TIMEOUT_MS),
        *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, NETWORK_TIMEOUT_MS),
    ]
    return StreamSource(hide_password(text), lambda: cv2.VideoCapture(text, cv2.CAP_FFMPEG, timeouts))


def _open_files(paths: list[str], name: str) -> VideoSource:
    """Images if there are any, else videos; files of other kinds are passed over."""
    images = [path for path in paths if is_image(path)]
    videos = [path for path in paths if path.lower().endswith(VIDEO_SUFFIXES)]
    if images and videos:
        raise VideoReadError(f"{name}: both images and videos; name one kind, such as '*{Path(images[0]).suffix}'")
    if images:
        return ImageSource(images, name)
    if videos:
        return FileSource(videos)
    known = ", ".join(IMAGE_SUFFIXES + VIDEO_SUFFIXES)
    raise VideoReadError(f"{name}: no image and no video among {len(paths)} files (known are {known})")


def is_image(path: str) -> bool:
    """Whether a file is an image, by its name."""
    return path.lower().endswith(IMAGE_SUFFIXES)


def sorted_naturally(paths: Iterator[str]) -> list[str]:
    """Sorted with numbers as numbers: 2.jpg before 10.jpg."""

    def key(path: str) -> list:
        parts = re.split(r"([0-9]+)", path)
        return [(int(part), part) if i % 2 else (0, part) for i, part in enumerate(parts)]

    return sorted(paths, key=key)


def hide_password(address: str) -> str:
    """An address without the user and password that it may hold."""
    return re.sub(r"(?<=://)[^/@]*@", "", address)
