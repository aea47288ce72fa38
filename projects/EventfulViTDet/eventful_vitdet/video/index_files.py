"""Indices of video files, kept in the user's cache folder: made once for a file, and again when it has changed."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from fractions import Fraction

import av
import numpy as np

from ..files import file_identity, remove_if_there, user_cache_folder, write_atomically
from .frame_index import FrameIndex

FORMAT_VERSION = 7
MOST_FILES = 20_000
"""When there are more, the older half goes."""
ARRAYS = ("seconds", "stamps", "keys", "torn")
FRACTIONS = ("pixel_aspect", "time_base")
DIGEST_BYTES = 32
MOST_IN_MEMORY = 64

_in_memory: dict[str, tuple[list, FrameIndex]] = {}
"""Indices that this process has used, with what their files were, by path. Without a lock, which a forked process might
find taken."""

logger = logging.getLogger(__name__)


def load_index(path: str) -> FrameIndex | None:
    """The kept index of a video file as it is now; None where there is none, or a damaged one."""
    try:
        identity = index_identity(path)
        known, index = _in_memory.get(path, (None, None))
        if known == identity:
            return index
        with open(_place(path), "rb") as file:
            digest, content = file.read(DIGEST_BYTES), file.read()
    except OSError:
        return None
    if hashlib.sha256(content).digest() != digest:
        logger.debug("%s: the kept index is damaged and will be made again", path)
        return None
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        facts = json.loads(bytes(stored["facts"]))
        if facts.pop("file") != identity:
            return None
        arrays = {name: stored[name] for name in ARRAYS if name in stored.files}
    facts.update({name: Fraction(*facts[name]) for name in FRACTIONS})
    index = FrameIndex(**facts, **arrays)
    _keep_in_memory(path, identity, index)
    return index


def keep_index(path: str, index: FrameIndex, identity: list) -> None:
    """Keep the index of a video file. Where the folder cannot be written, only this process does.

    Args:
        identity: the file's `index_identity` from before it was read; the index of one that grew since is too short.
    """
    facts = {name: value for name, value in vars(index).items() if name not in ARRAYS}
    facts.update({name: [facts[name].numerator, facts[name].denominator] for name in FRACTIONS})
    facts["file"] = identity
    _keep_in_memory(path, identity, index)
    arrays = {name: getattr(index, name) for name in ARRAYS if getattr(index, name) is not None}
    stored = io.BytesIO()
    np.savez(stored, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), **arrays)
    content = stored.getvalue()
    try:
        write_atomically(_place(path), hashlib.sha256(content).digest() + content)
        _remove_oldest(os.path.dirname(_place(path)))
    except OSError as error:
        logger.debug("%s: its index is not kept (%s)", path, error)


def _keep_in_memory(path: str, identity: list, index: FrameIndex) -> None:
    if len(_in_memory) >= MOST_IN_MEMORY:
        _in_memory.clear()
    _in_memory[path] = (identity, index)


def index_identity(path: str) -> list:
    """What tells whether a file is the one that was indexed, in the same way by the same FFmpeg. Raises OSError."""
    return [FORMAT_VERSION, av.__version__, *file_identity(path)]


def _place(path: str) -> str:
    name = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:32]
    return os.path.join(user_cache_folder(), "video_index", f"{name}.index")


def _remove_oldest(folder: str) -> None:
    entries = [entry for entry in os.scandir(folder) if entry.name.endswith(".index")]
    if len(entries) > MOST_FILES:
        entries.sort(key=lambda entry: entry.stat().st_mtime_ns)
        for entry in entries[: len(entries) // 2]:
            remove_if_there(entry.path)
