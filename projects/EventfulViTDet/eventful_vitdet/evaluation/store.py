"""One file per finished video: what was detected in its frames and what they cost.

A file is there whole or not at all, so an evaluation that was interrupted at any moment resumes with the videos that
have none. A file ends with a digest of everything before it, so damage of any kind is noticed when it is read.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
from eventful_vit.cost import CATEGORIES

from ..errors import EvaluationError
from ..files import open_atomically, remove_if_there, remove_temporary_files
from .detection_table import DetectionTable
from .stored_masks import MASK_COLUMNS, pack_masks, unpack_masks

RECORDS_FOLDER = "videos"
RECORD_SUFFIX = ".npz"
MAX_NAME = 200
"""Letters of a video's id in the name of its file; file systems take 255 bytes."""

FRAME_COLUMNS = {
    "image_ids": np.int64,
    "flushed": np.bool_,
    "backbone_seconds": np.float64,
    "total_seconds": np.float64,
}
DETECTION_COLUMNS = {"classes": np.int32, "scores": np.float32, "boxes": np.float32}
NAMES = ("video_id", "source", "machine")
COLUMNS = {*FRAME_COLUMNS, *DETECTION_COLUMNS, *NAMES, "macs", "per_frame"}
DIGEST_BYTES = 16

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoRecord:
    """The finished evaluation of one video of F frames."""

    video_id: int | str
    image_ids: np.ndarray
    """(F,) int64, in the order of the frames."""
    flushed: np.ndarray
    """(F,) bool: computed in full, at the start of a sequence."""
    macs: np.ndarray
    """(F, C) int64: multiply-accumulates, a column for each of `eventful_vit.cost.CATEGORIES`."""
    backbone_seconds: np.ndarray
    """(F,) float64."""
    total_seconds: np.ndarray
    """(F,) float64."""
    detections: DetectionTable
    """Of all frames, in their order."""
    source: str = ""
    """`digest_video` of the files that were read."""
    machine: str = ""
    """What the seconds were measured on."""

    def __len__(self) -> int:
        return len(self.image_ids)

    def frames_since_flush(self) -> np.ndarray:
        """(F,) int64: 0 for a frame computed in full, then 1, 2, ..."""
        position = np.arange(len(self))
        return position - np.maximum.accumulate(np.where(self.flushed, position, 0))


def record_path(folder: str, video_id: int | str) -> str:
    """The file of a video's record below the folder of an evaluation."""
    # Dots too: "..npz" and the like would be hidden files.
    name = quote(str(video_id), safe="").replace(".", "%2E")
    if len(name) > MAX_NAME:
        name = f"{name[:MAX_NAME]}-{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"
    return os.path.join(folder, RECORDS_FOLDER, name + RECORD_SUFFIX)


def record_paths(folder: str) -> list[str]:
    """The files of all finished videos below the folder of an evaluation, sorted by name."""
    inside = os.path.join(folder, RECORDS_FOLDER)
    if not os.path.isdir(inside):
        return []
    return [os.path.join(inside, name) for name in sorted(os.listdir(inside)) if name.endswith(RECORD_SUFFIX)]


def write_record(folder: str, record: VideoRecord) -> str:
    """Write a finished video's record and return its path. Raises EvaluationError if the disk is full or refuses."""
    path = record_path(folder, record.video_id)
    try:
        with open_atomically(path, durable=True) as file:
            file.write(_encode(record))
    except OSError as error:
        raise EvaluationError(
            f"{path}: the results of video {record.video_id} cannot be written ({error.strerror or error}); those of "
            "the videos before are safe. Rerun the same command to resume"
        ) from error
    return path


def remove_records(folder: str, video_ids: Iterable[int | str]) -> None:
    """Delete the records of videos; those that have none are left alone."""
    for video_id in video_ids:
        remove_if_there(record_path(folder, video_id))


def read_record(path: str) -> VideoRecord:
    """Read a record. Raises EvaluationError, naming the file, if it is damaged, or no record of this version."""
    try:
        return _read(path)
    except Damage as damage:
        raise EvaluationError(
            f"{path}: is no record of an evaluated video, or it is damaged ({damage}). Rerun the evaluation's command "
            "to evaluate this video again"
        ) from damage


def is_record_of(path: str, video_id: int | str, image_ids: list[int], source: str) -> bool:
    """Whether a file is an undamaged record of these frames, made of the files that `source` is the digest of.

    The log says why it is not.
    """
    try:
        record = _read(path)
        if (record.video_id, record.image_ids.tolist()) != (video_id, image_ids):
            raise Damage("it is of other frames")
        if record.source != source:
            raise Damage("the video's files have changed since")
    except Damage as damage:
        logger.warning("video %s is evaluated again, %s cannot be used: %s", video_id, path, damage)
        return False
    return True


def remove_unfinished(folder: str) -> None:
    """Delete what killed processes left of unfinished records and results; no process may be writing any."""
    for inside in (folder, os.path.join(folder, RECORDS_FOLDER)):
        if os.path.isdir(inside):
            remove_temporary_files(inside)


class Damage(Exception):
    """Why a file cannot be used as a record."""


def _read(path: str) -> VideoRecord:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise Damage(error.strerror or str(error)) from error
    if _digest(content[:-DIGEST_BYTES]) != content[-DIGEST_BYTES:]:
        raise Damage("its content does not match its digest")
    # From here on, the content is what `write_record` wrote, in this version or another.
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        if set(file.files) - MASK_COLUMNS != COLUMNS or file["macs"].shape[1:] != (len(CATEGORIES),):
            raise Damage("it was written by another version")
        frames = {name: file[name] for name in FRAME_COLUMNS}
        detections = {name: file[name] for name in DETECTION_COLUMNS}
        masks = unpack_masks(file, len(detections["scores"]))
        table = DetectionTable(np.repeat(frames["image_ids"], file["per_frame"]), **detections, masks=masks)
        return VideoRecord(macs=file["macs"], detections=table, **frames, **{name: file[name].item() for name in NAMES})


def _encode(record: VideoRecord) -> bytes:
    """An .npz file whose comment is a digest of all bytes before it."""
    _check_lengths(record)
    table, file = record.detections, io.BytesIO()
    np.savez_compressed(
        file,
        **{name: getattr(record, name) for name in NAMES},
        macs=record.macs.astype(np.int64, copy=False),
        # How many of the detections belong to each frame, in place of an id for every detection.
        per_frame=_count_per_frame(record),
        **{name: getattr(record, name).astype(kind, copy=False) for name, kind in FRAME_COLUMNS.items()},
        **{name: getattr(table, name).astype(kind, copy=False) for name, kind in DETECTION_COLUMNS.items()},
        **pack_masks(table.masks),
    )
    # A zip file ends with its comment, after the comment's length in two bytes.
    content = file.getvalue()[:-2] + struct.pack("<H", DIGEST_BYTES)
    return content + _digest(content)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def _check_lengths(record: VideoRecord) -> None:
    table = record.detections
    shapes = {
        **{name: (getattr(record, name).shape, (len(record),)) for name in FRAME_COLUMNS},
        "macs": (record.macs.shape, (len(record), len(CATEGORIES))),
        **{name: (getattr(table, name).shape, (len(table),)) for name in DETECTION_COLUMNS if name != "boxes"},
        "boxes": (table.boxes.shape, (len(table), 4)),
    }
    for name, (found, expected) in shapes.items():
        if found != expected:
            raise ValueError(f"video {record.video_id}: {name} has shape {found}, expected {expected}")


def _count_per_frame(record: VideoRecord) -> np.ndarray:
    """(F,) number of detections of each frame; the table holds them in the order of the frames."""
    place = {image_id: i for i, image_id in enumerate(record.image_ids.tolist())}
    places = np.array([place[image_id] for image_id in record.detections.image_ids.tolist()], np.int64)
    if (np.diff(places) < 0).any():
        raise ValueError(f"the detections of video {record.video_id} are not in the order of its frames")
    return np.bincount(places, minlength=len(record))
