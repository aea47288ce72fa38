"""YouTube-VIS files as COCO-VID documents: an annotation there is an object, with lists of boxes and masks by frame.

    videos[]:       id, file_names (an image file for each frame), height, width
    annotations[]:  id, video_id, category_id, bboxes, segmentations, areas: an entry, or null, for each frame
    categories[]:   id, name

Published validation and test files have no annotations. OVIS and other data sets are written in the same way.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence

from ..errors import DatasetError
from .annotation_file import MAX_SIDE_PIXELS, is_file_name, is_finite, quote, whole_number
from .segmentations import Segmentation, as_run_lengths, read_segmentation

logger = logging.getLogger(__name__)

LISTS = {"bboxes": "bbox", "segmentations": "segmentation", "areas": "area"}
"""Keys of an object's lists, and what an entry is called in COCO."""
IMAGE_FOLDER = "JPEGImages"

Names = Mapping[tuple[str, int], str]
"""What the rows of a document are called in messages, by table and id."""


def is_youtube_vis(document: object) -> bool:
    """Whether a file's content is of this kind: videos that list their files, and no images."""
    videos = document.get("videos") if isinstance(document, dict) else None
    return (
        isinstance(videos, list)
        and "images" not in document
        and any(isinstance(video, dict) and "file_names" in video for video in videos)
    )


def as_coco_vid(json_file: str, root: str, document: dict) -> tuple[dict, Names]:
    """The document with an image for each frame, and an annotation for each frame of an object.

    Frames are numbered by their place in the list. Images are numbered from 1, in the order of the file; the identity
    of an object is its id. Masks without a box get one.

    Args:
        root: where the image files are: in it, in its folder JPEGImages, or in that of the file's split.

    Raises DatasetError, naming key and row.
    """
    frames, images, names = _images(json_file, root, document["videos"])
    annotations, names_of_annotations = _annotations(json_file, _objects(json_file, document), frames)
    videos = [{**video, "name": _video_name(video)} for video in document["videos"]]
    converted = {**document, "videos": videos, "images": images, "annotations": annotations}
    return converted, {**names, **names_of_annotations}


def _objects(json_file: str, document: dict) -> list:
    """The objects of a file; none in the published validation and test files."""
    objects = document.get("annotations")
    if objects is None:
        return []
    if not isinstance(objects, list):
        raise DatasetError(f"{json_file}: 'annotations' must be a list, found {type(objects).__name__}")
    return objects


def _annotations(json_file: str, objects: list, frames: Mapping[int, list[dict]]) -> tuple[list[dict], dict]:
    """An annotation for each frame of each object, and their names; warns of objects that no frame shows.

    Args:
        frames: of each video, by its id, the images of its frames.
    """
    annotations: list[dict] = []
    names: dict[tuple[str, int], str] = {}
    seen: set[int] = set()
    unseen: list[int] = []
    for row, entry in enumerate(objects):
        where = _object_place(json_file, row, entry, seen)
        video = whole_number(entry["video_id"])
        if video not in frames:
            raise DatasetError(f"{where} has video_id {quote(entry['video_id'])}, which 'videos' does not list")
        common = {key: entry[key] for key in ("category_id", "iscrowd") if key in entry}
        shown = _shown(where, entry, frames[video])
        unseen += [] if shown else [entry["id"]]
        for place, parts in shown:
            number, image_id = len(annotations) + 1, frames[video][place]["id"]
            annotations.append({**common, "id": number, "image_id": image_id, "instance_id": entry["id"], **parts})
            names["annotations", number] = f"annotation {entry['id']}, frame {place}"
    if unseen:
        logger.warning(
            "%s: %d objects are shown in no frame and left out, the first is annotation %s",
            *(json_file, len(unseen), unseen[0]),
        )
    return annotations, names


def _object_place(json_file: str, row: int, entry: object, seen: set[int]) -> str:
    """What messages call an object; its keys and id are checked."""
    if not isinstance(entry, dict):
        raise DatasetError(f"{json_file}: annotations[{row}] must be an object, found {quote(entry)}")
    for key in ("id", "video_id", "category_id"):
        if key not in entry:
            raise DatasetError(f"{json_file}: annotations[{row}] has no key '{key}'")
    number = whole_number(entry["id"])
    if number is None:
        raise DatasetError(f"{json_file}: annotations[{row}] has id {quote(entry['id'])}; expected a whole number")
    if number in seen:
        raise DatasetError(f"{json_file}: id {number} occurs more than once in 'annotations'")
    seen.add(number)
    return f"{json_file}: annotation {number}"


def _images(json_file: str, root: str, videos: list) -> tuple[dict[int, list[dict]], list[dict], dict]:
    """The frames of each video, all of them as images, and their names."""
    frames: dict[int, list[dict]] = {}
    images: list[dict] = []
    names: dict[tuple[str, int], str] = {}
    for row, video in enumerate(videos):
        where = f"{json_file}: videos[{row}]"
        files = video.get("file_names") if isinstance(video, dict) else None
        if not isinstance(files, list) or not files or not all(map(is_file_name, files)):
            raise DatasetError(f"{where} has file_names {quote(files)}; expected a list of image files, one per frame")
        number = whole_number(video.get("id"))
        if number is None:
            raise DatasetError(f"{where} has id {quote(video.get('id'))}; expected a whole number")
        if number in frames:
            raise DatasetError(f"{json_file}: id {number} occurs more than once in 'videos'")
        for key in ("height", "width"):
            pixels = whole_number(video.get(key))
            if pixels is None or not 0 < pixels < MAX_SIDE_PIXELS:
                raise DatasetError(f"{where} has {key} {quote(video.get(key))}; expected a positive integer")
        frames[number] = []
        for place, name in enumerate(files):
            image = {"id": len(images) + 1, "video_id": number, "frame_id": place, "file_name": name}
            image.update(height=video["height"], width=video["width"])
            names["images", image["id"]] = f"videos[{row}], file_names[{place}]"
            frames[number].append(image)
            images.append(image)
    prefix = _find_prefix(json_file, root, images[0]["file_name"]) if images else ""
    for image in images:
        image["file_name"] = f"{prefix}{image['file_name']}"
    return frames, images, names


def _find_prefix(json_file: str, root: str, name: str) -> str:
    """Where below the root the first file is; "" if it is nowhere."""
    split = os.path.splitext(os.path.basename(json_file))[0].removeprefix("instances_")
    prefixes = ("", f"{IMAGE_FOLDER}/", f"{split}/{IMAGE_FOLDER}/", f"{split}/")
    return next((prefix for prefix in prefixes if os.path.isfile(os.path.join(root, prefix, name))), "")


def _shown(where: str, entry: dict, frames: Sequence[dict]) -> list[tuple[int, dict]]:
    """The frames that show an object: their places in the lists, and box, mask and area as COCO has them."""
    lists = {key: entry[key] for key in LISTS if entry.get(key) is not None}
    if not {"bboxes", "segmentations"} & set(lists):
        raise DatasetError(f"{where} has neither 'bboxes' nor 'segmentations'")
    for key, values in lists.items():
        if not isinstance(values, list) or len(values) != len(frames):
            found = f"{len(values)} entries" if isinstance(values, list) else quote(values)
            raise DatasetError(f"{where} has {key} with {found}; its video has {len(frames)} frames")
    shown = []
    for place, frame in enumerate(frames):
        parts = {LISTS[key]: values[place] for key, values in lists.items() if values[place] is not None}
        mask = read_segmentation(
            f"{where}, segmentations[{place}]", parts.get("segmentation"), frame["height"], frame["width"]
        )
        if mask is None and parts.get("bbox") is None:
            continue
        if mask is not None and not {"bbox", "area"} <= set(parts):
            box, area = _extent(mask, frame)
            if "bbox" not in parts and not area:  # a mask without a pixel: it is not shown here
                continue
            parts = {"bbox": box, "area": area, **parts}
        if "area" in parts and not (is_finite(parts["area"]) and parts["area"] >= 0):
            raise DatasetError(f"{where}, areas[{place}] is {quote(parts['area'])}; expected a number of pixels")
        shown.append((place, parts))
    return shown


def _extent(mask: Segmentation, frame: Mapping) -> tuple[list[float], int]:
    """The box [x, y, width, height] around a mask, and its square pixels."""
    from pycocotools import mask as coco_mask

    runs = as_run_lengths(mask, frame["height"], frame["width"])
    return coco_mask.toBbox(runs).tolist(), int(coco_mask.area(runs))


def _video_name(video: dict) -> str:
    """Its name, or that of the folder that all its files lie in, or its number."""
    folders = {os.path.dirname(name.replace("\\", "/")) for name in video["file_names"]}
    folder = folders.pop() if len(folders) == 1 else ""
    return video.get("name") or folder or str(video["id"])
