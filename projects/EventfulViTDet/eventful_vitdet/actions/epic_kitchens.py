"""EPIC-Kitchens 100: its CSV files, and where videos or frames are.

<root>/EPIC_100_validation.csv
<root>/videos/P01_11.mp4                       or <root>/P01/videos/P01_11.MP4, as it is distributed
<root>/validation/frames/00012/*.jpg           or a folder of frames for each line, counted from 0
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from .clip import Clip
from .clip_files import find_folder, find_video
from .csv_rows import CsvRow, check_columns

TIMES = ("start_timestamp", "stop_timestamp")
COLUMNS = ("video_id", *TIMES)
LABELS = {"verb": "verb_class", "noun": "noun_class"}
"""Columns of the heads' classes."""


def read_epic_kitchens(rows: Sequence[CsvRow], root: str, split: str, classes: Mapping[str, int]) -> list[Clip]:
    """The clips of a CSV file in its order; those without a file have an empty path.

    Args:
        rows: its lines.
        root: folder of the videos.
        split: name of the folder of frames, such as "validation".
        classes: number of classes by head; those that EPIC-Kitchens has need their columns. {}: without labels.

    Raises:
        DatasetError: the file lacks a column, or a line has times or classes that cannot be.
    """
    labels = {head: LABELS[head] for head in classes if head in LABELS}
    check_columns(rows, (*COLUMNS, *labels.values()))
    known: dict[tuple[str, str], str] = {}
    clips = []
    for number, row in enumerate(rows):
        start, stop = row.span(*TIMES)
        frames = find_folder(os.path.join(root, split, "frames", f"{number:05d}"))
        clips.append(
            Clip(
                row.values.get("narration_id") or f"{number:05d}",
                row.place,
                frames or _find(row, root, known),
                {head: row.number(column, classes[head]) for head, column in labels.items()},
                start,
                stop,
            )
        )
    return clips


def _find(row: CsvRow, root: str, known: dict[tuple[str, str], str]) -> str:
    video = row.text("video_id")
    participant = row.values.get("participant_id") or video.partition("_")[0]
    key = (participant, video)
    if key not in known:
        known[key] = find_video([os.path.join(root, "videos"), os.path.join(root, participant, "videos")], video)
    return known[key]
