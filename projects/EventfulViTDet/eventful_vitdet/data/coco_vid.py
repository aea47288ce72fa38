"""COCO-VID annotation files: one JSON with `videos`, `images`, `annotations` and `categories`.

Two layouts are read. Video files: `videos[].file_name` names a video and an image is its frame number
`frame_id`. Frame folders: `images[].file_name` names an image file. Names are relative to the data set's
root.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Collection, Iterable

from detectron2.structures import BoxMode

from ..errors import DatasetError
from .video_data import BadVideo, Defect, VideoData

Video = list[dict]
"""The listed frames of one video, in order."""

REQUIRED_KEYS = {
    "categories": ("id", "name"),
    "videos": ("id",),
    "images": ("id", "video_id", "frame_id"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
}
FLAGS = ("occluded", "generated")
MAX_OVERSHOOT_PIXELS = 1.0
MAX_NAMED_FILES = 10
MAX_INTEGER = 1 << 53  # JSON's integers have any length; a float holds these exactly


def load_coco_vid(json_file: str, root: str) -> list[dict]:
    """Return the frames of `parse_coco_vid`: the list that DatasetCatalog serves."""
    return parse_coco_vid(json_file, root).frames


def parse_coco_vid(json_file: str, root: str, *, strict: bool = True) -> VideoData:
    """Read and check an annotation file whose file names are relative to `root`.

    Raises DatasetError, naming file and entry, for whatever makes the file unusable. Videos of which a file is absent
    are an error too, or with `strict=False` become the result's bad videos.
    """
    return parse_document(json_file, root, read_document(json_file), strict=strict)


def parse_document(json_file: str, root: str, document: dict, *, strict: bool = True) -> VideoData:
    """`parse_coco_vid` for the content of a file; `json_file` is the name in errors."""
    tables = {key: _index_by_id(json_file, document, key) for key in REQUIRED_KEYS}
    if not tables["images"]:
        raise DatasetError(f"{json_file}: 'images' is empty, so there is no frame to read")
    if not tables["categories"]:
        raise DatasetError(f"{json_file}: 'categories' is empty; at least one class is needed")

    category_ids = sorted(tables["categories"])
    classes = [tables["categories"][i]["name"] for i in category_ids]
    _check_class_names(json_file, classes)
    as_stored = bool(document.get("images_as_stored", False))
    frames = {
        i: _make_frame(json_file, root, image, tables["videos"], as_stored) for i, image in tables["images"].items()
    }
    contiguous = {category_id: i for i, category_id in enumerate(category_ids)}
    for annotation in tables["annotations"].values():
        frame, box = _make_annotation(json_file, annotation, frames, contiguous)
        frame["annotations"].append(box)

    ordered = _order(json_file, frames.values(), list(tables["videos"]))
    names = {i: str(video.get("name", video.get("file_name", i))) for i, video in tables["videos"].items()}
    absent = _absent_files(ordered)
    if strict and absent:
        raise DatasetError(_describe_absent(json_file, root, absent, ordered))
    bad_videos = [
        BadVideo(i, names[i], tuple(Defect(f, f"{f}: does not exist, but {json_file} lists it") for f in files))
        for i, files in absent.items()
    ]
    return VideoData(classes, category_ids, ordered, names, bad_videos)


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


def read_document(json_file: str, tables: Collection[str] = tuple(REQUIRED_KEYS)) -> dict:
    """The content of a JSON file that holds a list under each of the given names. Raises DatasetError."""
    try:
        with open(json_file, encoding="utf-8") as file:
            document = json.load(file)
    except OSError as error:
        raise DatasetError(f"{json_file}: cannot read the annotation file ({error.strerror})") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DatasetError(f"{json_file}: is not valid JSON ({error})") from error
    if not isinstance(document, dict):
        raise DatasetError(f"{json_file}: expected a JSON object with the keys {', '.join(tables)}")
    for key in tables:
        if key not in document:
            raise DatasetError(f"{json_file}: key '{key}' is missing (needed: {', '.join(tables)})")
        if not isinstance(document[key], list):
            raise DatasetError(f"{json_file}: '{key}' must be a list, found {type(document[key]).__name__}")
    return document


def _check_class_names(json_file: str, classes: list) -> None:
    # Results are reported by class name, so that two classes of one name would hide each other.
    for name, count in Counter(map(repr, classes)).items():
        if count > 1:
            raise DatasetError(f"{json_file}: {count} categories have the name {name}")
    for name in classes:
        if not isinstance(name, str) or not name:
            raise DatasetError(f"{json_file}: a category has the name {name!r}; expected text")


def _index_by_id(json_file: str, document: dict, table: str) -> dict[int, dict]:
    entries: dict[int, dict] = {}
    for position, entry in enumerate(document[table]):
        if not isinstance(entry, dict):
            raise DatasetError(f"{json_file}: {table}[{position}] must be an object, found {entry!r}")
        for key in REQUIRED_KEYS[table]:
            if key not in entry:
                raise DatasetError(f"{json_file}: {table}[{position}] has no key '{key}'")
        if not _is_integer(entry["id"]):
            raise DatasetError(f"{json_file}: {table}[{position}] has id {entry['id']!r}; ids are integers")
        if entry["id"] in entries:
            raise DatasetError(f"{json_file}: id {entry['id']} occurs more than once in '{table}'")
        entries[entry["id"]] = entry
    return entries


def _make_frame(json_file: str, root: str, image: dict, videos: dict[int, dict], as_stored: bool) -> dict:
    where = f"{json_file}: image {image['id']}"
    video = videos.get(image["video_id"]) if _is_integer(image["video_id"]) else None
    if video is None:
        raise DatasetError(f"{where} has video_id {image['video_id']!r}, which 'videos' does not list")
    if not _is_integer(image["frame_id"]) or image["frame_id"] < 0:
        raise DatasetError(f"{where} has frame_id {image['frame_id']!r}; expected an integer, 0 or larger")
    size = {key: image.get(key, video.get(key)) for key in ("height", "width")}
    for key, value in size.items():
        if not _is_integer(value) or value <= 0:
            raise DatasetError(f"{where} has {key} {value!r}; its entry or its video's must give a positive integer")
    is_video_file = "file_name" not in image
    file_name = video.get("file_name") if is_video_file else image["file_name"]
    if not isinstance(file_name, str) or not file_name:
        raise DatasetError(
            f"{where} has no usable 'file_name', nor has its video {video['id']}: give the video file in "
            "'videos' or the image file in 'images'"
        )
    return {
        "file_name": os.path.join(root, file_name),
        "is_video_file": is_video_file,
        "video_id": image["video_id"],
        "frame_id": image["frame_id"],
        "image_id": image["id"],
        **size,
        **({"as_stored": True} if as_stored else {}),
        "annotations": [],
    }


def _make_annotation(
    json_file: str, annotation: dict, frames: dict[int, dict], contiguous: dict[int, int]
) -> tuple[dict, dict]:
    where = f"{json_file}: annotation {annotation['id']}"
    for key, known in (("image_id", frames), ("category_id", contiguous)):
        if not _is_integer(annotation[key]) or annotation[key] not in known:
            table = "images" if key == "image_id" else "categories"
            raise DatasetError(f"{where} has {key} {annotation[key]!r}, which '{table}' does not list")
    frame = frames[annotation["image_id"]]
    if annotation.get("video_id", frame["video_id"]) != frame["video_id"]:
        raise DatasetError(
            f"{where} has video_id {annotation['video_id']!r}, but its image {frame['image_id']} belongs to "
            f"video {frame['video_id']}"
        )
    if annotation.get("iscrowd", 0) not in (0, 1):
        raise DatasetError(f"{where} has iscrowd {annotation['iscrowd']!r}; expected 0 or 1")
    for key in FLAGS:
        if annotation.get(key, 0) not in (0, 1):
            raise DatasetError(f"{where} has {key} {annotation[key]!r}; expected 0 or 1")
    box = _checked_box(where, annotation["bbox"], frame["width"], frame["height"])
    return frame, {
        "bbox": box,
        "bbox_mode": BoxMode.XYWH_ABS,
        "category_id": contiguous[annotation["category_id"]],
        "instance_id": annotation.get("instance_id", -1),
        "iscrowd": int(annotation.get("iscrowd", 0)),
        "area": _checked_area(where, annotation, box),
        **{key: int(annotation[key]) for key in FLAGS if key in annotation},
    }


def _checked_box(where: str, box: object, width: int, height: int) -> list[float]:
    """Return [x, y, width, height] clipped to the frame; an overshoot of up to a pixel is rounding."""
    if not isinstance(box, list) or len(box) != 4 or not all(is_finite(value) for value in box):
        raise DatasetError(f"{where} has box {box!r}; expected four finite numbers [x, y, width, height]")
    x, y, w, h = (float(value) for value in box)
    if w <= 0 or h <= 0:
        raise DatasetError(f"{where} has box {box}, whose width or height is not positive")
    overshoot = max(-x, -y, x + w - width, y + h - height)
    if overshoot <= 0:
        return [x, y, w, h]
    x0, y0, x1, y1 = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
    if overshoot > MAX_OVERSHOOT_PIXELS or x1 <= x0 or y1 <= y0:
        raise DatasetError(f"{where} has box {box}, which reaches outside its {width} x {height} image")
    return [x0, y0, x1 - x0, y1 - y0]


def _checked_area(where: str, annotation: dict, box: list[float]) -> float:
    area = annotation.get("area", box[2] * box[3])
    if not is_finite(area) or area < 0:
        raise DatasetError(f"{where} has area {area!r}; expected a number of pixels")
    return float(area)


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
    shown = ", ".join(names[:MAX_NAMED_FILES])
    more = f" and {len(names) - MAX_NAMED_FILES} more" if len(names) > MAX_NAMED_FILES else ""
    return f"{json_file}: {len(names)} of the {listed} files it names do not exist under the root {root}: {shown}{more}"


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: object) -> bool:
    """Whether a value of a JSON file is a number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < MAX_INTEGER
