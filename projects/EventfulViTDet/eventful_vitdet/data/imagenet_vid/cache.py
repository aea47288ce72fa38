"""The annotations of a split in one file, and whether it still describes the XML files on the disk.

The file is `cache/eventful_vitdet/<name>.npz` in the data set's folder, or where that cannot be written, below the
user's cache folder (XDG_CACHE_HOME, ~/.cache).
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from ...file_locks import acquire_lock
from ...files import user_cache_folder, write_atomically
from .index import AnnotationIndex
from .lists import ListedVideo

FORMAT_VERSION = 1
STAT_THREADS = 16  # hides the delay of a network disk

logger = logging.getLogger(__name__)


def cached_index(root: str, name: str, fingerprint: str, build: Callable[[], AnnotationIndex]) -> AnnotationIndex:
    """The index of data set `name` below `root`: from its file if that has the fingerprint, else built and written.

    Processes that ask at the same time wait for one of them to build it.
    """
    places = [os.path.join(folder, f"{name}.npz") for folder in _folders(root)]
    for path in places:
        index = _read(path, fingerprint)
        if index is not None:
            return index
    path = next(filter(_can_write, places), None)
    if path is None:
        logger.warning("no folder for a cache can be written (%s): annotations are read again every time", places[0])
        return build()
    with _locked(path + ".lock"):
        index = _read(path, fingerprint)
        if index is None:
            index = build()
            _write(path, fingerprint, index)
    return index


def fingerprint_files(list_content: str, videos: list[ListedVideo], paths: Callable[[ListedVideo], list[str]]) -> str:
    """A digest of a list and of the size and time of change of every file in `paths(video)`; absent files count too."""
    digest = hashlib.sha256(f"{FORMAT_VERSION}\n{list_content}".encode())
    with ThreadPoolExecutor(STAT_THREADS) as pool:
        for video, states in zip(videos, pool.map(lambda video: _states(paths(video)), videos, chunksize=1)):
            digest.update(f"{video.name} {len(video.frames)}\n".encode() + states)
    return digest.hexdigest()


def _states(paths: list[str]) -> bytes:
    states = np.full((len(paths), 2), -1, dtype=np.int64)
    for i, path in enumerate(paths):
        try:
            stat = os.stat(path)
        except OSError:
            continue
        states[i] = stat.st_size, stat.st_mtime_ns
    return states.tobytes()


def _folders(root: str) -> Iterator[str]:
    yield os.path.join(root, "cache", "eventful_vitdet")
    try:
        base = user_cache_folder()
    except OSError:  # a user without a home
        return
    yield os.path.join(base, hashlib.sha256(os.path.abspath(root).encode()).hexdigest()[:12])


def _can_write(path: str) -> bool:
    folder = os.path.dirname(path)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


@contextmanager
def _locked(path: str) -> Iterator[None]:
    # Without locks, the cache is still replaced in one step.
    lock = acquire_lock(path, "several processes may read the annotations", timeout=-1)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _read(path: str, wanted: str) -> AnnotationIndex | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            if header["fingerprint"] != wanted:
                logger.info("%s: the list or the annotations have changed; reading them again", path)
                return None
            arrays = {name: file[name] for name in header["arrays"]}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        logger.warning("%s: cannot be used (%s); reading the annotations again", path, error)
        return None
    defects = {int(frame): reason for frame, reason in header["defects"].items()}
    return AnnotationIndex(**arrays, other_classes=header["other_classes"], defects=defects)


def _write(path: str, fingerprint: str, index: AnnotationIndex) -> None:
    arrays = index.arrays()
    header = {
        "fingerprint": fingerprint,
        "arrays": list(arrays),
        "other_classes": index.other_classes,
        "defects": index.defects,
    }
    content = io.BytesIO()
    np.savez_compressed(content, header=np.array(json.dumps(header)), **arrays)
    try:
        write_atomically(path, content.getvalue())
    except OSError as error:
        logger.warning("%s: cannot be written (%s); the annotations are read again next time", path, error.strerror)
