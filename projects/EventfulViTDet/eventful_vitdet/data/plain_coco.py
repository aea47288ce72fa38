"""From plain COCO over frames, as CVAT, Label Studio and others export it, to a COCO-VID file.

Frames become videos by their names: by a pattern, or else those of one folder that have the same name but for its last
number, which is the number of the frame. Boxes, classes, tracks and crowds are kept; masks are not.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import DatasetError
from ..files import write_atomically
from ..video.opening import natural_key
from .annotation_file import is_file_name, is_finite, quote, read_document, read_whole
from .coco_vid import NO_TRACK, leads_outside, parse_document
from .read_rules import ReadRules

TABLES = ("images", "annotations", "categories")
TRACK_KEYS = ("track_id", "instance_id")
IMAGE_FOLDERS = ("", "images")
"""Where below the root an export has its frames, where nobody says it."""
UPLOAD_PREFIX = re.compile(r"[0-9a-f]{8}-(?=.)")  # Label Studio puts a code of the upload before every name
AUGMENTED_SUFFIX = re.compile(r"_(jpe?g|png)\.rf\.[0-9a-z]+$", re.IGNORECASE)  # Roboflow, behind it
LAST_NUMBER = re.compile(r"(.*?)([0-9]+)([^0-9]*)", re.DOTALL)
MAX_DIGITS = 15


class FramePlace(NamedTuple):
    """A frame's video, by name, and its number in it."""

    video: str
    number: int


@dataclass(frozen=True)
class Conversion:
    """What a conversion has written."""

    videos: int
    frames: int
    boxes: int
    tracks: int
    single_frames: int
    """Videos of one frame; many of them say that names were not understood."""
    absent_files: int


def convert_plain_coco(
    json_file: str,
    output: str,
    root: str,
    *,
    images: str | None = None,
    pattern: str | None = None,
    names_only: bool = False,
) -> Conversion:
    """Write the COCO-VID file `output`, whose file names are relative to `root`.

    Args:
        images: folder that the file names of the input start from; None: `root`, or `images` in it.
        pattern: a regular expression that is searched in file names (with / between folders) and has the groups
            `frame`, digits, and perhaps `video`; None: see above.
        names_only: leave out the folders in file names, which are those of another machine.

    Raises DatasetError, naming file and entry, and writes nothing then.
    """
    if os.path.realpath(json_file) == os.path.realpath(output):
        raise DatasetError(f"{output}: is the input itself; write to another file")
    document = read_document(json_file, TABLES)
    expression = _compile(pattern)
    names = [_file_name(json_file, position, image, names_only) for position, image in enumerate(document["images"])]
    places = [_place(f"{json_file}: images[{i}]", name, expression) for i, name in enumerate(names)]
    prefix = _find_prefix(root, images, names)
    numbers = {video: i for i, video in enumerate(sorted({p.video for p in places}, key=natural_key), start=1)}
    prepared = {
        "categories": document["categories"],
        "videos": [{"id": number, "name": video} for video, number in numbers.items()],
        "images": _images(json_file, document["images"], names, places, numbers, prefix),
        "annotations": [_annotation(json_file, i, entry) for i, entry in enumerate(document["annotations"])],
    }
    rules = ReadRules(empty_boxes="drop")  # who evaluates the new file decides about these
    data = parse_document(output, root, prepared, strict=False, rules=rules)
    write_atomically(output, json.dumps(prepared) + "\n")
    lengths = Counter(place.video for place in places).values()
    tracks = {(frame["video_id"], a["instance_id"]) for frame in data.frames for a in frame["annotations"]}
    return Conversion(
        videos=len(numbers),
        frames=len(places),
        boxes=len(prepared["annotations"]),
        tracks=sum(track != NO_TRACK for _, track in tracks),
        single_frames=sum(length == 1 for length in lengths),
        absent_files=sum(len(bad.defects) for bad in data.bad_videos),
    )


def _compile(pattern: str | None) -> re.Pattern | None:
    if pattern is None:
        return None
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise DatasetError(f"--pattern {pattern!r} is no regular expression: {error}") from error
    if "frame" not in expression.groupindex:
        raise DatasetError(f"--pattern {pattern!r} has no group (?P<frame>[0-9]+) for the number of the frame")
    return expression


def _file_name(json_file: str, position: int, image: object, names_only: bool) -> str:
    name = image.get("file_name") if isinstance(image, Mapping) else None
    if not is_file_name(name):
        raise DatasetError(f"{json_file}: images[{position}] has no usable 'file_name' (found {quote(name)})")
    plain = name.replace("\\", "/")
    plain = plain.rpartition("/")[2] if names_only else plain
    if not plain or leads_outside(plain):
        raise DatasetError(
            f"{json_file}: images[{position}] names the file {quote(name)}, which is no path below a data set's "
            "folder; --names-only leaves folders out"
        )
    return plain


def _place(where: str, name: str, expression: re.Pattern | None) -> FramePlace:
    if expression is not None:
        found = expression.search(name)
        if found is None:
            raise DatasetError(f"{where}: --pattern does not match its file_name {quote(name)}")
        groups = found.groupdict()
        video, digits = groups.get("video") or os.path.dirname(name) or "video", groups["frame"] or ""
    else:
        folder, stem = os.path.split(os.path.splitext(name)[0])
        stem = UPLOAD_PREFIX.sub("", AUGMENTED_SUFFIX.sub("", stem), count=1)
        parts = LAST_NUMBER.fullmatch(stem)
        if parts is None:
            raise DatasetError(f"{where}: file_name {quote(name)} has no number; --pattern tells how frames are named")
        video, digits = "/".join(filter(None, (folder, parts[1].rstrip("_-. ")))) or "video", parts[2]
    if not re.fullmatch(f"[0-9]{{1,{MAX_DIGITS}}}", digits):
        raise DatasetError(f"{where}: {quote(digits)} in file_name {quote(name)} is no number of a frame")
    return FramePlace(video, int(digits))


def _find_prefix(root: str, images: str | None, names: list[str]) -> str:
    """What to put before file names so that they start from `root`."""
    if images is not None:
        prefix = os.path.relpath(images, root).replace(os.sep, "/")
        if prefix.split("/")[0] == "..":
            raise DatasetError(f"--images {images}: is not below the new file's root {root}")
        return "" if prefix == "." else f"{prefix}/"
    for folder in IMAGE_FOLDERS:
        if names and os.path.isfile(os.path.join(root, folder, names[0])):
            return f"{folder}/" if folder else ""
    return ""


def _images(
    json_file: str,
    entries: list[dict],
    names: list[str],
    places: list[FramePlace],
    numbers: Mapping[str, int],
    prefix: str,
) -> list[dict]:
    images, first = [], {}
    for position, (entry, name, place) in enumerate(zip(entries, names, places)):
        where = f"{json_file}: images[{position}]"
        if place in first:
            raise DatasetError(
                f"{where}: {quote(name)} is frame {place.number} of video {quote(place.video)}, but so is "
                f"{quote(first[place])}; --pattern tells videos apart"
            )
        first[place] = name
        kept = {key: entry[key] for key in ("id", "width", "height") if key in entry}
        images.append(
            {**kept, "video_id": numbers[place.video], "frame_id": place.number, "file_name": f"{prefix}{name}"}
        )
    return images


def _annotation(json_file: str, position: int, entry: object) -> object:
    """An annotation with what COCO-VID has of it; one that is none is reported with the whole file."""
    if not isinstance(entry, Mapping):
        return entry
    where = f"{json_file}: annotations[{position}]"
    attributes = entry.get("attributes")
    attributes = attributes if isinstance(attributes, Mapping) else {}
    copied = ("id", "image_id", "category_id", "bbox", "iscrowd", "segmentation")
    kept = {key: entry[key] for key in copied if key in entry}
    if is_finite(entry.get("area")) and entry["area"] > 0:
        kept["area"] = entry["area"]
    if isinstance(attributes.get("occluded"), bool):
        kept["occluded"] = int(attributes["occluded"])
    for source in (attributes, entry):
        for key in TRACK_KEYS:
            track = source.get(key)
            if track is not None and "instance_id" not in kept:
                kept["instance_id"] = track if isinstance(track, str) else read_whole(where, source, key)
    return kept
