"""What an evaluation keeps of every finished clip, so that one that was interrupted resumes.

Each process appends a line per clip to a file of its own below <folder>/clips. A line carries its own digest: what an
interruption left of a line does not count, and its clip is evaluated again. So is a clip whose files have changed
since.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from ..errors import DataError, EvaluationError
from ..evaluation.fingerprint import write_fingerprint
from ..evaluation.provenance import digest_files
from ..evaluation.resume_plan import choose_folder, in_turns
from .clip import Clip
from .clip_frames import open_clip

FOLDER = "clips"

logger = logging.getLogger(__name__)


class RecordWriter:
    """Appends the records of one process."""

    def __init__(self, folder: str, process: int) -> None:
        self.path = os.path.join(folder, FOLDER, f"{process:03d}-{os.getpid()}.jsonl")
        self._file: IO[str] | None = None

    def __enter__(self) -> RecordWriter:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, record: Mapping[str, Any]) -> None:
        """Write a finished clip's record. Raises EvaluationError if the disk is full or refuses."""
        content = json.dumps(record)
        try:
            if self._file is None:
                os.makedirs(os.path.dirname(self.path), exist_ok=True)
                self._file = open(self.path, "a", encoding="utf-8")
                self._file.write("\n")  # ends what another process of this number may have left of a line
            self._file.write(f"{_digest(content)} {content}\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise EvaluationError(
                f"{self.path}: cannot be written ({error.strerror or error}); the clips before are safe. Rerun the "
                "same command to resume"
            ) from error


def read_records(folder: str) -> dict[str, dict]:
    """The records of all finished clips below a folder, by clip."""
    return {record["clip_id"]: record for record in _lines(folder)}


def current_records(folder: str, sources: Mapping[str, str]) -> dict[str, dict]:
    """The same of the clips whose files are those that were evaluated.

    `sources` is what `digest_clips` returns; each record has its clip's as "source".
    """
    return {
        record["clip_id"]: record
        for record in _lines(folder)
        if record["clip_id"] in sources and record.get("source") == sources[record["clip_id"]]
    }


def say_changed(folder: str, current: Mapping[str, dict], sources: Mapping[str, str]) -> None:
    """Log which clips are evaluated again, and why.

    Args:
        current: what `current_records` returned for the sources.
    """
    for clip_id in read_records(folder):
        if clip_id not in current:
            reason = "its files have changed since" if clip_id in sources else "its files cannot be read any more"
            logger.warning("clip %s is evaluated again: %s", clip_id, reason)


def digest_clips(clips: Iterable[Clip]) -> dict[str, str]:
    """A digest of the files that each clip is read from, as those of `digest_video`; none for those that cannot be
    read: what is wrong with it is said when the clip is run."""

    @functools.cache
    def digest_file(path: str) -> str:  # many clips may be parts of it
        return digest_files([path], is_video=True)

    found = {}
    for clip in clips:
        try:
            if os.path.isdir(clip.path):
                found[clip.clip_id] = digest_files(open_clip(clip, 0).files, is_video=False)
            else:
                found[clip.clip_id] = digest_file(clip.path)
        except DataError:
            continue
    return found


def _lines(folder: str) -> Iterator[dict]:
    for path in sorted(Path(folder, FOLDER).glob("*.jsonl")):
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                digest, _, content = line.rstrip("\n").partition(" ")
                if content and digest == _digest(content):
                    yield json.loads(content)


def _digest(content: str) -> str:
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def begin(folder: str, settings: Mapping[str, Any]) -> str:
    """Where the records of an evaluation of these settings go: the folder, or the replacement that was begun in it.

    All processes call this together. Raises EvaluationError, saying what differs, where there are records of others.
    """
    place = choose_folder(folder, settings, lambda place: len(read_records(place)), "clips")
    in_turns(lambda: write_fingerprint(place, settings, complete=False))
    return place
