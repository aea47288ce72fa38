"""All annotations of a split as arrays, read from its XML files by several processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ...errors import DatasetError
from ..parallel_map import map_in_processes
from .lists import ListedVideo
from .xml_files import XmlFrame, read_xml

FILES_PER_TASK = 500
MIN_FILES_FOR_PROCESSES = 4000
ROW_LENGTH = 9  # box, class, track, three flags


@dataclass(frozen=True)
class AnnotationIndex:
    """F frames with B boxes; those of frame i are the rows box_starts[i] to box_starts[i + 1].

    Boxes are as in the files, (x, y, width, height) in pixels, not clipped to the image. Classes count from 0. Tracks
    and flags that a file does not give are -1. A frame of which the file could not be used has size 0 and no boxes.
    """

    sizes: np.ndarray
    """(F, 2) width and height in pixels."""
    box_starts: np.ndarray
    boxes: np.ndarray
    """(B, 4) float64."""
    classes: np.ndarray
    tracks: np.ndarray
    flags: np.ndarray
    """(B, 3): occluded, generated, iscrowd."""
    other_classes: dict[str, int]
    """Objects left out because the data set does not have their class: their number by name."""
    defects: dict[int, str]
    """By frame: why its file cannot be used, beginning with its path below the folder of the annotations."""

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields that are arrays, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


class ReadTask(NamedTuple):
    """Some frames of a video: `paths` are their XML files."""

    paths: list[str]
    classes: dict[str, int]
    may_have_others: bool


class ReadResult(NamedTuple):
    """Of a task's files: size (0, 0 if unusable) and number of boxes of each; a row per box; what was left out."""

    sizes: np.ndarray
    counts: np.ndarray
    rows: np.ndarray
    others: Counter
    defects: dict[int, str]


def xml_path(folder: str, video: ListedVideo, frame: int, is_still: bool) -> str:
    """The XML file of a frame below `folder`; an image of its own has no frame number in its path."""
    return f"{folder}/{video.name}.xml" if is_still else f"{folder}/{video.name}/{frame:06d}.xml"


def build_index(
    folder: str,
    videos: list[ListedVideo],
    classes: list[str],
    *,
    is_still: bool,
    may_have_others: bool,
) -> AnnotationIndex:
    """Read the XML files of all listed frames below `folder`, in the order of the lists, with a progress bar.

    Args:
        classes: the names (wnids) in the order of the classes.
        is_still: the videos are images.
        may_have_others: leave out objects of other classes and count them; otherwise they are a defect.
    """
    paths = [xml_path(folder, video, frame, is_still) for video in videos for frame in video.frames]
    processes = 1 if len(paths) < MIN_FILES_FOR_PROCESSES else None
    numbered = {name: i for i, name in enumerate(classes)}
    tasks = [
        ReadTask(paths[start : start + FILES_PER_TASK], numbered, may_have_others)
        for start in range(0, len(paths), FILES_PER_TASK)
    ]
    results = []
    with tqdm(total=len(paths), desc="reading annotations", unit="file", mininterval=1.0, delay=2.0) as progress:
        for result in map_in_processes(read_files, tasks, processes):
            results.append(result)
            progress.update(len(result.sizes))
    return _join(results, len(folder) + 1)


def read_files(task: ReadTask) -> ReadResult:
    """Read the files of one task."""
    sizes, counts, rows = [], [], []
    others, defects = Counter(), {}
    for i, path in enumerate(task.paths):
        try:
            frame = read_xml(path)
            found = list(_rows(path, frame, task, others))
        except DatasetError as error:
            defects[i] = str(error)
            frame, found = XmlFrame(0, 0, []), []
        sizes.append((frame.width, frame.height))
        counts.append(len(found))
        rows += found
    boxes = np.array(rows, dtype=np.float64).reshape(-1, ROW_LENGTH)
    return ReadResult(np.array(sizes, dtype=np.int32), np.array(counts, dtype=np.int64), boxes, others, defects)


def _rows(path: str, frame: XmlFrame, task: ReadTask, others: Counter) -> Iterator[tuple]:
    for item in frame.objects:
        number = task.classes.get(item.name)
        if number is not None:
            _check_box(path, frame, item.box)
            yield (*item.box, number, item.track, item.occluded, item.generated, item.crowd)
        elif task.may_have_others:
            others[item.name] += 1
        else:
            raise DatasetError(f"{path}: has an object of the class {item.name!r}, which is none of the data set's")


def _check_box(path: str, frame: XmlFrame, box: tuple[float, float, float, float]) -> None:
    x, y, width, height = box
    if width <= 0 or height <= 0:
        corners = f"xmin {x:g}, ymin {y:g}, xmax {x + width:g}, ymax {y + height:g}"
        raise DatasetError(f"{path}: has a box of no area ({corners})")
    if min(x + width, frame.width) <= max(x, 0) or min(y + height, frame.height) <= max(y, 0):
        raise DatasetError(f"{path}: has a box outside of its {frame.width} x {frame.height} image (at {x:g}, {y:g})")


def _join(results: list[ReadResult], prefix: int) -> AnnotationIndex:
    defects, first = {}, 0
    for result in results:
        defects.update({first + i: reason[prefix:] for i, reason in result.defects.items()})
        first += len(result.sizes)
    empty = ReadResult(np.empty((0, 2), np.int32), np.empty(0, np.int64), np.empty((0, ROW_LENGTH)), Counter(), {})
    parts = [empty, *results]
    counts = np.concatenate([part.counts for part in parts])
    rows = np.concatenate([part.rows for part in parts])
    return AnnotationIndex(
        sizes=np.concatenate([part.sizes for part in parts]),
        box_starts=np.concatenate([[0], np.cumsum(counts)]),
        boxes=np.ascontiguousarray(rows[:, :4]),
        classes=rows[:, 4].astype(np.int16),
        tracks=rows[:, 5].astype(np.int32),
        flags=rows[:, 6:].astype(np.int8),
        other_classes=dict(sum((part.others for part in parts), Counter())),
        defects=defects,
    )
