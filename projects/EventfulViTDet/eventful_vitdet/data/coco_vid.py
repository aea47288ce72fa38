"""COCO-VID annotation files: one JSON with `videos`, `images`, `annotations` and `categories`.

Two layouts are read. Video files: `videos[].file_name` names a video and an image is its frame number
`frame_id`. Frame folders: `images[].file_name` names an image file. Names are relative to the data set's
root. YouTube-VIS files become the second one (youtube_vis.py). What may be odd about a file, and what is done about it,
is in read_rules.py.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from detectron2.structures import BoxMode

from ..errors import DatasetError, shorten
from .annotation_file import (
    MAX_SIDE_PIXELS,
    check_area,
    check_flag,
    check_tables,
    is_file_name,
    is_plain_text,
    quote,
    read_json_object,
    read_whole,
    whole_number,
)
from .odd_boxes import OddBoxes
from .read_rules import DEFAULT_RULES, ReadRules
from .segmentations import read_segmentation
from .video_data import BadVideo, Defect, VideoData
from .youtube_vis import Names, as_coco_vid, is_youtube_vis

Video = list[dict]
"""The listed frames of one video, in order."""

REQUIRED_KEYS = {
    "categories": ("id", "name"),
    "videos": ("id",),
    "images": ("id", "video_id", "frame_id"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
}
FLAGS = ("occluded", "generated")
NO_TRACK = -1
MAX_NAMED_FILES = 10

logger = logging.getLogger(__name__)


def load_coco_vid(json_file: str, root: str, rules: ReadRules = DEFAULT_RULES) -> list[dict]:
    """Return the frames of `parse_coco_vid`: the list that DatasetCatalog serves."""
    return parse_coco_vid(json_file, root, rules=rules).frames


def parse_coco_vid(json_file: str, root: str, *, strict: bool = True, rules: ReadRules = DEFAULT_RULES) -> VideoData:
    """Read and check an annotation file whose file names are relative to `root`.

    Raises DatasetError, naming file and entry, for all that makes the file unusable. Videos of which a file is absent
    are an error too, or with `strict=False` become the result's bad videos.
    """
    document, names = read_video_document(json_file, root)
    return parse_document(json_file, root, document, strict=strict, rules=rules, names=names)


def read_video_document(json_file: str, root: str) -> tuple[dict, Names]:
    """The content of a COCO-VID file, or of a YouTube-VIS file as one, with the names of the rows that are not the
    file's own. It has all tables; their rows are not checked. Raises DatasetError."""
    document, names = read_json_object(json_file, tuple(REQUIRED_KEYS)), {}
    if is_youtube_vis(document):
        document, names = as_coco_vid(json_file, root, document)
    check_tables(json_file, document, tuple(REQUIRED_KEYS))
    return document, names


def parse_document(
    json_file: str,
    root: str,
    document: dict,
    *,
    strict: bool = True,
    rules: ReadRules = DEFAULT_RULES,
    names: Names = MappingProxyType({}),
) -> VideoData:
    """`parse_coco_vid` for the content of a file; `json_file` is its name in errors, `names` those of rows that are not
    the file's own."""
    tables = {key: index_by_id(json_file, document, key) for key in REQUIRED_KEYS}
    if not tables["images"]:
        raise DatasetError(f"{json_file}: 'images' is empty, so there is no frame to read")
    if not tables["categories"]:
        raise DatasetError(f"{json_file}: 'categories' is empty; at least one class is needed")

    category_ids = sorted(tables["categories"])
    classes = [tables["categories"][i]["name"] for i in category_ids]
    _check_class_names(json_file, classes)
    as_stored = document.get("images_as_stored", False)
    if not isinstance(as_stored, bool):
        raise DatasetError(f"{json_file}: images_as_stored is {quote(as_stored)}; expected true or false")
    frames = {
        i: _make_frame(json_file, root, i, image, tables["videos"], as_stored, rules, names)
        for i, image in tables["images"].items()
    }
    _add_annotations(json_file, tables["annotations"], frames, category_ids, rules, names)
    ordered = _order(json_file, frames.values(), list(tables["videos"]))
    _warn_if_counted_from_one(json_file, ordered, rules)

    names = {i: _video_name(json_file, i, video) for i, video in tables["videos"].items()}
    absent = _absent_files(ordered)
    if strict and absent:
        raise DatasetError(_describe_absent(json_file, root, absent, ordered))
    bad_videos = [
        BadVideo(i, names[i], tuple(Defect(f, f"{f}: does not exist, but {json_file} lists it") for f in files))
        for i, files in absent.items()
    ]
    return VideoData(classes, category_ids, ordered, names, bad_videos)


def identity_of(annotation: Mapping) -> object:
    """The instance_id of a frame dict's annotation, or NO_TRACK: data sets that others register may have none."""
    identity = annotation.get("instance_id")
    return NO_TRACK if identity is None else identity


def group_by_video(frames: Iterable[dict]) -> list[Video]:
    """Split frame dicts into one list per video, keeping the order of videos and frames."""
    groups: dict[int, Video] = {}
    for frame in frames:
        groups.setdefault(frame["video_id"], []).append(frame)
    return list(groups.values())


def regular_step(frame_ids: list[int]) -> int:
    """Most common difference of neighbouring frame numbers, the smallest of several; 1 for a single frame."""
    steps = Counter(b - a for a, b in zip(frame_ids, frame_ids[1:]))
    return min(steps, key=lambda step: (-steps[step], step), default=1)


def split_sequences(frames: Iterable[dict]) -> list[list[dict]]:
    """Split ordered frame dicts into runs without a gap, each from one video.

    A difference of frame numbers above the video's regular step is a gap.
    """
    runs: list[list[dict]] = []
    for frame in frames:
        previous = runs[-1][-1] if runs else None
        follows = (
            previous is not None
            and frame["video_id"] == previous["video_id"]
            and 0 < frame["frame_id"] - previous["frame_id"] <= frame["frame_step"]
        )
        if follows:
            runs[-1].append(frame)
        else:
            runs.append([frame])
    return runs


def _check_class_names(json_file: str, classes: list) -> None:
    for name in classes:
        if not is_plain_text(name):
            raise DatasetError(f"{json_file}: a category has the name {quote(name)}; expected text")
    # Results are reported by class name, so that two classes of one name would hide each other.
    for name, count in Counter(classes).items():
        if count > 1:
            raise DatasetError(f"{json_file}: {count} categories have the name {name!r}")


def index_by_id(json_file: str, document: dict, table: str) -> dict[int, dict]:
    """The entries of a table by their id. Raises DatasetError for an entry that lacks a key, or ids that are none."""
    entries: dict[int, dict] = {}
    for position, entry in enumerate(document[table]):
        if not isinstance(entry, dict):
            raise DatasetError(f"{json_file}: {table}[{position}] must be an object, found {quote(entry)}")
        for key in REQUIRED_KEYS[table]:
            if key not in entry:
                raise DatasetError(f"{json_file}: {table}[{position}] has no key '{key}'")
        number = read_whole(f"{json_file}: {table}[{position}]", entry, "id")
        if number in entries:
            raise DatasetError(f"{json_file}: id {number} occurs more than once in '{table}'")
        entries[number] = entry
    return entries


def _video_name(json_file: str, video_id: int, video: dict) -> str:
    found = video.get("name")
    if found is None:
        found = video.get("file_name", video_id)
    name = found if isinstance(found, str) else whole_number(found)
    if name is None or not is_plain_text(str(name)):
        raise DatasetError(f"{json_file}: video {video_id} has the name {quote(found)}; expected text")
    return str(name)


def _make_frame(
    json_file: str,
    root: str,
    image_id: int,
    image: dict,
    videos: dict[int, dict],
    as_stored: bool,
    rules: ReadRules,
    names: Names,
) -> dict:
    where = f"{json_file}: {names.get(('images', image_id), f'image {image_id}')}"
    video_id = whole_number(image["video_id"])
    if video_id not in videos:
        raise DatasetError(f"{where} has video_id {quote(image['video_id'])}, which 'videos' does not list")
    video = videos[video_id]
    is_video_file = "file_name" not in image
    file_name = video.get("file_name") if is_video_file else image["file_name"]
    if not is_file_name(file_name):
        raise DatasetError(
            f"{where} has no usable 'file_name', nor has its video {video_id} (found {quote(file_name)}): give the "
            "video file in 'videos' or the image file in 'images'"
        )
    frame_id = read_whole(where, image, "frame_id")
    first = rules.first_frame_id if is_video_file else 0  # the numbers of image files only put them in order
    if frame_id < first:
        key = " (DATASETS.FIRST_FRAME_ID)" if first else ""
        raise DatasetError(f"{where} has frame_id {frame_id}; expected an integer, {first} or larger{key}")
    return {
        "file_name": locate_file(where, root, file_name, rules),
        "is_video_file": is_video_file,
        "video_id": video_id,
        "frame_id": frame_id - first,
        "image_id": image_id,
        **_read_size(where, image, video),
        **({"as_stored": True} if as_stored else {}),
        "annotations": [],
    }


def _read_size(where: str, image: dict, video: dict) -> dict[str, int]:
    size = {}
    for key in ("height", "width"):
        value = image.get(key, video.get(key))
        pixels = whole_number(value)
        if pixels is None or not 0 < pixels < MAX_SIDE_PIXELS:
            raise DatasetError(
                f"{where} has {key} {quote(value)}; its entry or its video's must give a positive integer"
            )
        size[key] = pixels
    return size


def locate_file(where: str, root: str, name: str, rules: ReadRules) -> str:
    """The path of a file that is named relative to `root`, in Linux's or Windows' way.

    Raises DatasetError for a name that leads out of `root`, unless the rules allow it: who evaluates somebody else's
    annotation file does not want it to choose files anywhere on the disk.
    """
    plain = name.replace("\\", "/")
    if leads_outside(plain) and not rules.paths_outside_root:
        raise DatasetError(
            f"{where} names the file {quote(name)}, which is no path below the data set's folder; "
            "DATASETS.PATHS_OUTSIDE_ROOT True allows it"
        )
    literal = os.path.join(root, name)
    return literal if plain == name or os.path.isfile(literal) else os.path.join(root, plain)


def leads_outside(name: str) -> bool:
    """Whether a name, with / between folders, may lead out of the folder that it starts from."""
    return name.startswith("/") or re.match(r"[A-Za-z]:/", name) is not None or ".." in name.split("/")


def _add_annotations(
    json_file: str,
    table: dict[int, dict],
    frames: dict[int, dict],
    category_ids: list[int],
    rules: ReadRules,
    names: Names,
) -> None:
    contiguous = {category_id: i for i, category_id in enumerate(category_ids)}
    boxes = OddBoxes(json_file, rules)
    for number, annotation in table.items():
        name = names.get(("annotations", number), f"annotation {number}")
        frame, entry = _make_annotation(json_file, name, annotation, frames, contiguous, boxes)
        if entry is not None:
            frame["annotations"].append(entry)
    boxes.conclude()


def _make_annotation(
    json_file: str,
    name: str,
    annotation: dict,
    frames: dict[int, dict],
    contiguous: dict[int, int],
    boxes: OddBoxes,
) -> tuple[dict, dict | None]:
    """The frame of an annotation, and its entry there; None where the rules leave its box out."""
    where = f"{json_file}: {name}"
    frame, label = _look_up(where, annotation, frames, contiguous)
    for key in ("iscrowd", *FLAGS):
        check_flag(where, annotation, key)
    track = _read_track(where, annotation)
    check_area(where, annotation)
    mask = read_segmentation(where, annotation.get("segmentation"), frame["height"], frame["width"])
    box = boxes.usable_part(name, annotation["bbox"], frame["width"], frame["height"])
    if box is None:
        return frame, None
    return frame, {
        "bbox": box,
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": label,
        "instance_id": track,
        "iscrowd": int(annotation.get("iscrowd", 0)),
        "area": _area(annotation.get("area"), annotation["bbox"], box),
        **({} if mask is None else {"segmentation": mask}),
        **{key: int(annotation[key]) for key in FLAGS if key in annotation},
    }


def _look_up(
    where: str, annotation: dict, frames: dict[int, dict], contiguous: dict[int, int]
) -> tuple[dict, int]:
    """The frame and the class that an annotation names."""
    for key, known, table in (("image_id", frames, "images"), ("category_id", contiguous, "categories")):
        if whole_number(annotation[key]) not in known:
            raise DatasetError(f"{where} has {key} {quote(annotation[key])}, which '{table}' does not list")
    frame = frames[whole_number(annotation["image_id"])]
    if annotation.get("video_id", frame["video_id"]) != frame["video_id"]:
        raise DatasetError(
            f"{where} has video_id {quote(annotation['video_id'])}, but its image {frame['image_id']} belongs to "
            f"video {frame['video_id']}"
        )
    return frame, contiguous[whole_number(annotation["category_id"])]


def _read_track(where: str, annotation: dict) -> int | str:
    track = annotation.get("instance_id")
    if track is None:
        return NO_TRACK
    if isinstance(track, str):
        return track
    return read_whole(where, annotation, "instance_id")


def _area(annotated: float | None, whole: list[float], box: list[float]) -> float:
    """The annotated area, of a box that was cut off no more than is left; without one, the box's."""
    of_box = box[2] * box[3]
    if annotated is None:
        return of_box
    return float(annotated) if whole == box else min(float(annotated), of_box)


def _order(json_file: str, frames: Iterable[dict], video_ids: list[int]) -> list[dict]:
    by_video: dict[int, list[dict]] = {video_id: [] for video_id in video_ids}
    for frame in frames:
        by_video[frame["video_id"]].append(frame)
    for video_id, group in by_video.items():
        group.sort(key=lambda frame: frame["frame_id"])
        for first, second in zip(group, group[1:]):
            if first["frame_id"] == second["frame_id"]:
                raise DatasetError(
                    f"{json_file}: frame_id {first['frame_id']} of video {video_id} is listed twice, "
                    f"as images {first['image_id']} and {second['image_id']}"
                )
        if len({frame["is_video_file"] for frame in group}) > 1:
            raise DatasetError(f"{json_file}: some images of video {video_id} have a 'file_name' and some have not")
        step = regular_step([frame["frame_id"] for frame in group])
        for frame in group:
            frame["frame_step"] = step
    return [frame for group in by_video.values() for frame in group]


def _absent_files(frames: list[dict]) -> dict[int, list[str]]:
    """For every video that lacks some: its files that do not exist, in the order of the frames."""
    exists = {name: os.path.isfile(name) for name in {frame["file_name"] for frame in frames}}
    absent: dict[int, dict[str, None]] = {}
    for frame in frames:
        if not exists[frame["file_name"]]:
            absent.setdefault(frame["video_id"], {})[frame["file_name"]] = None
    return {video_id: list(files) for video_id, files in absent.items()}


def _describe_absent(json_file: str, root: str, absent: dict[int, list[str]], frames: list[dict]) -> str:
    names = list(dict.fromkeys(name for files in absent.values() for name in files))
    listed = len({frame["file_name"] for frame in frames})
    shown = shorten(names, MAX_NAMED_FILES)
    return f"{json_file}: {len(names)} of the {listed} files it names do not exist under the root {root}: {shown}"


def _warn_if_counted_from_one(json_file: str, frames: list[dict], rules: ReadRules) -> None:
    """Frames of video files that are numbered from 1 would all be read one frame late, without any error."""
    if rules.first_frame_id:
        return
    firsts = [video[0]["frame_id"] for video in group_by_video(frames) if video[0]["is_video_file"]]
    if firsts and min(firsts) == 1:
        logger.warning(
            "%s: no video begins with frame 0, and %d of %d begin with frame 1. Frames of video files count from 0; if "
            "this file counts from 1, its boxes are one frame off: DATASETS.FIRST_FRAME_ID 1 shifts them",
            json_file,
            firsts.count(1),
            len(firsts),
        )
