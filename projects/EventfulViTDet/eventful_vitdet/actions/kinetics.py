"""Kinetics: its CSV files, and where videos or frames are.

    <root>/val.csv                                 label, youtube_id, time_start, time_end, ...
    <root>/classes.txt                             all labels, a line each; without it, those of the CSV file
    <root>/val/<clip>.mp4                          or <root>/val/<label>/<clip>.mp4, <root>/videos/<clip>.mp4
    <root>/frames_224_25/<clip>/*.jpg              or a folder of frames for each clip

A clip is called <youtube_id>_<start, 6 digits>_<end, 6 digits>. Classes are labels in alphabetical order.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..errors import DatasetError
from .clip import Clip
from .clip_files import find_folder, find_video
from .csv_rows import CsvRow, check_columns

COLUMNS = ("label", "youtube_id", "time_start", "time_end")
CLASSES_FILE = "classes.txt"
FRAMES_FOLDER = "frames_224_25"


def read_kinetics(rows: Sequence[CsvRow], root: str, split: str, classes: int | None) -> tuple[list[Clip], list[str]]:
    """The clips of a CSV file in its order, those without a file with an empty path; and the labels.

    Args:
        rows: its lines.
        root: folder of the videos.
        split: name of the folder of videos, such as "val".
        classes: number of the model's classes; None: without labels.

    Raises:
        DatasetError: the file lacks a column, a line cannot be, or the labels are not as many as the model's classes.
    """
    check_columns(rows, COLUMNS if classes is not None else COLUMNS[1:])
    names = [] if classes is None else _read_classes(root, rows, classes)
    numbers = {name: i for i, name in enumerate(names)}
    clips = []
    for row in rows:
        start, end = row.span("time_start", "time_end")
        name = f"{row.text('youtube_id')}_{round(start):06d}_{round(end):06d}"
        labels = {}
        if classes is not None:
            if row.text("label") not in numbers:
                raise DatasetError(
                    f"{row.place}: column label has {row.text('label')!r}, which is not in {CLASSES_FILE}"
                )
            labels["label"] = numbers[row.text("label")]
        clips.append(Clip(name, row.place, _find(row, root, split, name), labels))
    return clips, names


def _find(row: CsvRow, root: str, split: str, name: str) -> str:
    label = (row.values.get("label") or "").strip()
    places = [os.path.join(root, split), os.path.join(root, split, label), os.path.join(root, "videos")]
    return find_folder(os.path.join(root, FRAMES_FOLDER, name)) or find_video(places, name)


def _read_classes(root: str, rows: Sequence[CsvRow], classes: int) -> list[str]:
    file = os.path.join(root, CLASSES_FILE)
    if os.path.isfile(file):
        try:
            with open(file, encoding="utf-8-sig") as lines:
                names = sorted({line.strip() for line in lines if line.strip()})
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(f"{file}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
        where = file
    else:
        names, where = sorted({row.text("label") for row in rows}), rows[0].file
    if len(names) != classes:
        raise DatasetError(
            f"{where}: has {len(names)} labels, but the model {classes} classes (MODEL.VIVIT.CLASSES); for a part of a "
            f"data set, put all labels, one per line, into {file}"
        )
    return names
