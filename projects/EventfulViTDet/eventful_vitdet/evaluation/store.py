"""One file per finished video: what was detected in its frames and what they cost.

A file is there whole or not at all, so an evaluation that was ended at any moment goes on with the videos that have
none.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
from eventful_vit.cost import CATEGORIES

from ..errors import EvaluationError
from ..files import open_atomically, remove_if_there, remove_temporary_files
from .detection_table import DetectionTable
from .stored_masks import pack_masks, unpack_masks

RECORDS_FOLDER = "videos"
RECORD_SUFFIX = ".npz"

FRAME_COLUMNS = {
    "image_ids": np.int64,
    "flushed": np.bool_,
    "backbone_seconds": np.float64,
    "total_seconds": np.float64,
}
DETECTION_COLUMNS = {"classes": np.int32, "scores": np.float32, "boxes": np.float32}
UNREADABLE = (OSError, EOFError, KeyError, ValueError, TypeError, zipfile.BadZipFile, zlib.error)
"""What NumPy raises for a file that is damaged, cut short, or something else."""


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
    table = record.detections
    try:
        with open_atomically(path, durable=True) as file:
            np.savez_compressed(
                file,
                video_id=record.video_id,
                macs=record.macs.astype(np.int64, copy=False),
                # How many of the detections belong to each frame, in place of an id for every detection.
                per_frame=_count_per_frame(record),
                **{name: getattr(record, name).astype(kind, copy=False) for name, kind in FRAME_COLUMNS.items()},
                **{name: getattr(table, name).astype(kind, copy=False) for name, kind in DETECTION_COLUMNS.items()},
                **pack_masks(table.masks),
            )
    except OSError as error:
        raise EvaluationError(
            f"{path}: the results of video {record.video_id} cannot be written ({error.strerror or error}); those of "
            "the videos before are safe, and the same command goes on from there"
        ) from error
    return path


def read_record(path: str) -> VideoRecord:
    """Read a record. Raises EvaluationError, naming the file, if it is damaged or none of this version."""
    try:
        with np.load(path, allow_pickle=False) as file:
            frames = {name: _column(file, name, kind) for name, kind in FRAME_COLUMNS.items()}
            columns = {name: _column(file, name, kind) for name, kind in DETECTION_COLUMNS.items()}
            per_frame, macs = _column(file, "per_frame", np.int64), _column(file, "macs", np.int64)
            video_id = file["video_id"].item()
            masks = unpack_masks(file, len(columns["scores"]))
    except UNREADABLE as error:
        raise _damaged(path, str(error)) from error
    length, rows = len(frames["image_ids"]), len(columns["scores"])
    aligned = [len(column) for column in (*frames.values(), per_frame, macs)] == [length] * (len(frames) + 2)
    if not (aligned and macs.shape[1:] == (len(CATEGORIES),) and (per_frame >= 0).all() and per_frame.sum() == rows):
        raise _damaged(path, "its columns do not fit together")
    if not (columns["classes"].shape == (rows,) and columns["boxes"].shape == (rows, 4)):
        raise _damaged(path, "its detections do not fit together")
    table = DetectionTable(np.repeat(frames["image_ids"], per_frame), **columns, masks=masks)
    return VideoRecord(video_id, macs=macs, detections=table, **frames)


def is_record_of(path: str, video_id: int | str, image_ids: list[int]) -> bool:
    """Whether a file is a readable record of these frames; reads its frames' ids only."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return file["video_id"].item() == video_id and np.array_equal(file["image_ids"], image_ids)
    except UNREADABLE:
        return False


def remove_records(folder: str) -> None:
    """Delete the records below the folder of an evaluation; other processes may be doing the same."""
    for path in record_paths(folder):
        remove_if_there(path)


def remove_unfinished(folder: str) -> None:
    """Delete what killed processes left of unfinished records and results; no process may be writing any."""
    for inside in (folder, os.path.join(folder, RECORDS_FOLDER)):
        if os.path.isdir(inside):
            remove_temporary_files(inside)


def _count_per_frame(record: VideoRecord) -> np.ndarray:
    """(F,) number of detections of each frame; the table holds them in the order of the frames."""
    place = {image_id: i for i, image_id in enumerate(record.image_ids.tolist())}
    places = np.array([place[image_id] for image_id in record.detections.image_ids.tolist()], np.int64)
    if (np.diff(places) < 0).any():
        raise ValueError(f"the detections of video {record.video_id} are not in the order of its frames")
    return np.bincount(places, minlength=len(record))


def _column(file: np.lib.npyio.NpzFile, name: str, kind: type) -> np.ndarray:
    values = file[name]
    if values.dtype != kind or values.ndim == 0:
        raise ValueError(f"{name} has type {values.dtype} and shape {values.shape}")
    return values


def _damaged(path: str, reason: str) -> EvaluationError:
    return EvaluationError(
        f"{path}: is no record of an evaluated video, or it is damaged ({reason}); delete it, and the same command "
        "evaluates this video again"
    )
