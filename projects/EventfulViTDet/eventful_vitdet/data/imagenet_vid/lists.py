"""The list files of ImageNet VID and DET: which frames of which videos a split has.

Paths in them have no extension. In the order of the columns:

- frames: `<video>/<frame> <id>` or `<video> <id> <frame> <length of the video>`
- videos: `<video> <id of the first frame> <first frame> <number of frames>`
- images (DET): `<image>`, with or without a further column

Frame numbers are taken as they stand, without a shift by one: they are the numbers of the files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ...errors import DatasetError
from ..annotation_file import is_file_name, quote

MAX_FRAMES = 1_000_000
NUMBER = re.compile("[0-9]{1,15}")  # so that every number, and every sum of two, fits into 64 bits
DRIVE = re.compile("[A-Za-z]:")


@dataclass(frozen=True)
class ListedVideo:
    """A video (or a still image, with frame 0 only) and its listed frames.

    `name` is the path below the folder of the annotations, such as "val/ILSVRC2015_val_00000000". `image_ids` number
    the frames throughout the list.
    """

    name: str
    frames: tuple[int, ...]
    image_ids: tuple[int, ...]


def read_list(path: str, content: str, part: str) -> list[ListedVideo]:
    """The videos of a list file, in its order, with their frames in ascending order.

    Args:
        path: of the file, which tells by its format and name what it lists: `..._videos.txt` is a list of videos,
            a name that starts with DET a list of images.
        content: of the file.
        part: "train" or "val", which is added to paths that do not start with it.

    The ids of the file are kept where no two frames share one (those of the validation lists are the frame numbers of
    ImageNet's submission format); else frames are counted from 1. Raises DatasetError naming file and line.
    """
    rows: dict[str, list[tuple[int, int]]] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        columns = line.split()
        if not columns:
            continue
        video, frames = _read_line(f"{path}: line {number}", os.path.basename(path), columns)
        rows.setdefault(_with_part(video, part), []).extend(frames)
    if not rows:
        raise DatasetError(f"{path}: lists nothing")
    return number_frames(path, rows)


def number_frames(origin: str, rows: dict[str, list[tuple[int, int]]]) -> list[ListedVideo]:
    """Make listed videos of (frame number, id) pairs per video. Raises DatasetError for a frame that comes twice."""
    ids = [image_id for frames in rows.values() for _, image_id in frames]
    keep_ids = len(set(ids)) == len(ids)
    videos, count = [], 0
    for name, frames in rows.items():
        frames.sort()
        numbers = tuple(frame for frame, _ in frames)
        if len(set(numbers)) < len(numbers):
            twice = next(a for a, b in zip(numbers, numbers[1:]) if a == b)
            raise DatasetError(f"{origin}: lists frame {twice} of {name} twice")
        counted = range(count + 1, count + 1 + len(numbers))
        videos.append(ListedVideo(name, numbers, tuple(i for _, i in frames) if keep_ids else tuple(counted)))
        count += len(numbers)
    return videos


def list_folder(folder: str, part: str) -> list[ListedVideo]:
    """All videos below `folder`/`part`: all folders that hold XML files, in alphabetical order."""
    rows = {
        os.path.relpath(path, folder).replace(os.sep, "/"): [(frame, 0) for frame in frames]
        for path, frames in _xml_folders(os.path.join(folder, part))
    }
    if not rows:
        raise DatasetError(f"{os.path.join(folder, part)}: has no annotations (XML files in a folder for each video)")
    return number_frames(folder, rows)


def _xml_folders(top: str) -> Iterator[tuple[str, list[int]]]:
    for path, folders, files in os.walk(top, followlinks=True):
        folders.sort()
        # Names with a leading dot are leftovers of other systems and programs, such as ._000000.xml.
        folders[:] = [name for name in folders if not name.startswith(".")]
        stems = [name[:-4] for name in files if name.endswith(".xml") and not name.startswith(".")]
        for stem in stems:
            if not NUMBER.fullmatch(stem):
                raise DatasetError(f"{os.path.join(path, stem)}.xml: expected a frame number as the file's name")
        if stems or (not folders and path != top):
            yield path, [int(stem) for stem in stems]


def _read_line(where: str, list_name: str, columns: list[str]) -> tuple[str, Iterable[tuple[int, int]]]:
    """The path that a line names, and its frames as pairs of number and id."""
    path = columns[0].replace("\\", "/")
    if path.startswith("/") or DRIVE.match(path) or ".." in path.split("/") or not is_file_name(path):
        raise DatasetError(f"{where}: {quote(path)} is no path below the data set's folder")
    if not all(NUMBER.fullmatch(column) for column in columns[1:]):
        raise DatasetError(f"{where}: expected whole numbers behind the path, found {quote(columns[1:])}")
    numbers = [int(column) for column in columns[1:]]
    if list_name.startswith("DET") and len(numbers) <= 1:
        return path, [(0, *(numbers or [0]))]
    if list_name.endswith("_videos.txt") and len(numbers) == 3:
        first_id, first, length = numbers
        if length > MAX_FRAMES:
            raise DatasetError(f"{where}: a video of {length} frames is more than {MAX_FRAMES}")
        return path, zip(range(first, first + length), range(first_id, first_id + length))
    if len(numbers) == 1 and "/" in path and NUMBER.fullmatch(path.rpartition("/")[2]):
        video, _, frame = path.rpartition("/")
        return video, [(int(frame), numbers[0])]
    if len(numbers) == 3:
        return path, [(numbers[1], numbers[0])]
    raise DatasetError(f"{where}: {quote(' '.join(columns))} is in none of the known formats of {list_name}")


def _with_part(path: str, part: str) -> str:
    return path if path.startswith(part + "/") else f"{part}/{path}"
