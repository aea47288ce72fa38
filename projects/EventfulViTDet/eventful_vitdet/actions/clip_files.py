"""Finding the video or the frames of a clip, whatever the file is called."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v")


def find_video(folders: Sequence[str], stem: str) -> str:
    """The first video file of this name, without its suffix, in one of some folders; "" if there is none."""
    for folder in folders:
        names = _videos(folder)
        if stem in names:
            return os.path.join(folder, names[stem])
    return ""


def find_folder(path: str) -> str:
    """The path if there is a folder; else ""."""
    return path if _has_folder(*os.path.split(path)) else ""


@functools.lru_cache(maxsize=4096)
def _videos(folder: str) -> dict[str, str]:
    """Video files of a folder by their names without suffix. A large folder is listed once, not for every clip."""
    if not os.path.isdir(folder):
        return {}
    found = {}
    for name in sorted(os.listdir(folder), reverse=True):
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in SUFFIXES and not name.startswith("."):
            found[stem] = name
    return found


def _has_folder(parent: str, name: str) -> bool:
    return name in _folders(parent)


@functools.lru_cache(maxsize=64)
def _folders(parent: str) -> frozenset[str]:
    if not os.path.isdir(parent):
        return frozenset()
    return frozenset(entry.name for entry in os.scandir(parent) if entry.is_dir())


def forget_listings() -> None:
    """Look into folders again, when a data set is loaded again."""
    _videos.cache_clear()
    _folders.cache_clear()
