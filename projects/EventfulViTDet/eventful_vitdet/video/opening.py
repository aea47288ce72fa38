"""From what a user names to sources."""

from __future__ import annotations

import glob
import mimetypes
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import VideoReadError
from .connections import connect_address, connect_camera, hide_secrets
from .container import open_container, video_stream
from .file_source import FileSource
from .image_files import count_pages, has_image_suffix
from .image_source import ImageSource
from .source import VideoSource
from .stream_source import StreamSource

MOTION_JPEG = (".mjpeg", ".mjpg")
"""How files are called in which the pictures of a video follow each other; by its beginning, each is a picture."""
SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "rtp", "srt")


def open_source(text: str, *, may_be_away: bool = False) -> VideoSource:
    """Open what a user named as one source; several videos are shown one after the other.

    Args:
        text: a video file or an image, a folder or pattern (quoted `*`) of images or videos, an address such as
            rtsp://..., or the number of a camera.
        may_be_away: a stream or a camera may be off now; its frames then begin when it is there.

    Raises VideoReadError, saying what was found and what was expected.
    """
    return _open_stream(text, may_be_away) or _open_files(*_find_files(text))


def open_sources(texts: Sequence[str]) -> list[VideoSource]:
    """Open what a user named, each video as a source of its own; the images of a folder or pattern are one.

    Raises VideoReadError.
    """
    sources: list[VideoSource] = []
    for text in texts:
        source = open_source(text)
        several = isinstance(source, FileSource) and len(source.paths) > 1
        sources += [FileSource([path]) for path in source.paths] if several else [source]
    return sources


def check_distinct(sources: Sequence[VideoSource]) -> None:
    """Raise VideoReadError if an input is named twice."""
    seen = set()
    for source in sources:
        key = tuple(map(os.path.realpath, source.paths)) or source.name
        if key in seen:
            raise VideoReadError(f"{source.name}: is named twice; name each input once")
        seen.add(key)


def _open_stream(text: str, may_be_away: bool) -> VideoSource | None:
    """A camera or an address; None for what is neither."""
    if re.fullmatch(r"[0-9]{1,9}", text):
        number = int(text)
        return StreamSource(f"camera {number}", lambda: connect_camera(number), may_be_away=may_be_away)
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text)
    if scheme is None:
        return None
    if scheme[1].lower() not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise VideoReadError(f"{hide_secrets(text)}: addresses begin with one of {known}")
    return StreamSource(hide_secrets(text), lambda: connect_address(text), may_be_away=may_be_away)


def _find_files(text: str) -> tuple[list[str], str]:
    """The files that are meant, and what to call them. Names that begin with a dot are passed over, unless it is the
    one that was named."""
    if os.path.isdir(text):
        found = (path for path in _list_folder(text) if os.path.isfile(path))
    elif not os.path.exists(text) and glob.has_magic(text):
        found = (path for path in glob.glob(text) if os.path.isfile(path))
    elif os.path.isfile(text):
        return [text], text
    elif os.path.exists(text):
        raise VideoReadError(
            f"{text}: is neither a file nor a folder (a camera is given by its number; save a pipe's content first)"
        )
    else:
        shown = hide_secrets(text) or repr(text)
        raise VideoReadError(
            f"{shown}: there is no such file or folder (streams begin with rtsp:// or http://, a camera "
            "is a small number)"
        )
    return sorted_naturally(path for path in found if not os.path.basename(path).startswith(".")), text


def _list_folder(folder: str) -> list[str]:
    try:
        return [os.path.join(folder, name) for name in os.listdir(folder)]
    except OSError as error:
        raise VideoReadError(f"{folder}: the folder cannot be read ({error.strerror})") from error


def _open_files(paths: list[str], name: str) -> VideoSource:
    """Images or videos; in a folder, files of other kinds are passed over."""
    pages = {path: count_pages(path) for path in paths}
    kinds = {path: _kind_of(path, pages[path]) for path in paths}
    images = [path for path in paths if kinds[path] == "image"]
    videos = [path for path in paths if kinds[path] == "video"]
    if images and videos:
        suffix = Path(images[0]).suffix
        raise VideoReadError(f"{hide_secrets(name)}: both images and videos; name one kind, such as '*{suffix}'")
    if images:
        return ImageSource(images, [pages[path] for path in images], name)
    if videos or paths == [name]:
        return FileSource(videos or paths)
    raise VideoReadError(f"{hide_secrets(name)}: no image and no video among {len(paths)} files")


def _kind_of(path: str, pages: int | None) -> str | None:
    """ "image" or "video", as trying to open it tells, or where nothing can, its name; None for neither.

    `pages`: what `count_pages` says of it.
    """
    if pages is not None:
        return "video" if path.lower().endswith(MOTION_JPEG) else "image"
    try:
        with open_container(path) as container:
            video_stream(container, path)
            if not container.format.name.endswith("_pipe"):  # which FFmpeg calls images that are opened as videos
                return "video"
    except VideoReadError:
        pass
    if has_image_suffix(path):
        return "image"
    return "video" if (mimetypes.guess_type(path)[0] or "").startswith("video/") else None


def sorted_naturally(paths: Iterable[str]) -> list[str]:
    """Sorted with numbers as numbers: 2.jpg before 10.jpg."""
    return sorted(paths, key=natural_key)


def natural_key(name: str) -> list[tuple[int, str, str]]:
    """What to sort names by, so that numbers in them, of any length, count as numbers."""
    parts = re.split(r"([0-9]+)", name)
    # Without leading zeros, a number with more digits is the larger one.
    numbers = [part.lstrip("0") if i % 2 else "" for i, part in enumerate(parts)]
    return [(len(number), number, part) for number, part in zip(numbers, parts)]
