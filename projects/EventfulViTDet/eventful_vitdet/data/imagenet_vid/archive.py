"""ImageNet VID as the authors of the paper distribute it: COCO-style JSON and flat folders of frames.

    vid_data/
        annotations/{det_train,vid_train,vid_val,vid_minival}.json
        {det_train,vid_train,vid_val}/*.JPEG        vid_minival is a part of vid_val

The last two fields of a frame's name, between underscores, are its video and its number. The tree that the authors'
own code makes of it is read too: `<split>/labels.json` and `<split>/frames/<video>/<number>.jpg`.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from ...errors import DatasetError
from ..annotation_file import is_finite, quote, read_document, whole_number
from ..builtin import IMAGENET_VID_WNIDS
from ..coco_vid import parse_document
from ..video_data import BadVideo, Defect, VideoData
from .box_clipping import clip_box

ARCHIVE_SPLITS = ("det_train", "vid_train", "vid_val", "vid_minival")
FRAME_NUMBER = re.compile("[0-9]{1,15}")
IMAGE_FOLDERS = {"vid_minival": ("vid_minival", "vid_val")}


class ArchiveFrame(NamedTuple):
    """An entry of "images": `stem` is its name up to the number, `video` and `number` are that name's last fields."""

    stem: str
    video: str
    number: str
    image: dict


def load_archive(split: str, root: str) -> VideoData:
    """Load a split from the folder of the archive. Raises DatasetError.

    A gap in a video's frame numbers starts a new sequence; every sequence is a video of its own, named after video and
    first frame. The images of det_train are one video each. Videos with an absent frame or a box of no area are the
    result's bad videos.
    """
    json_file = _find_json(split, root)
    document = read_document(json_file, ("images", "annotations"))
    _check_categories(json_file, document)
    sequences = _split_sequences(_read_frames(json_file, document), is_still=split == "det_train")
    locate = _find_layout(split, root, [frame for sequence in sequences for frame in sequence])
    images, names = {}, {}
    for video_id, sequence in enumerate(sequences, start=1):
        names[video_id] = f"{sequence[0].video}_{sequence[0].number}"
        for frame in sequence:
            place = {"video_id": video_id, "frame_id": int(frame.number), "file_name": locate(frame)}
            images[whole_number(frame.image["id"])] = {**frame.image, **place}
    annotations, bad_videos = _prepare_annotations(json_file, document, images, names)
    prepared = {
        "categories": [{"id": i, "name": name} for i, name in enumerate(IMAGENET_VID_WNIDS, start=1)],
        "videos": [{"id": video_id, "name": name} for video_id, name in names.items()],
        "images": list(images.values()),
        "annotations": annotations,
        "images_as_stored": True,
    }
    data = parse_document(json_file, root, prepared, strict=False)
    known = {bad.video_id for bad in data.bad_videos}
    return replace(data, bad_videos=data.bad_videos + [bad for bad in bad_videos if bad.video_id not in known])


def _find_json(split: str, root: str) -> str:
    places = [os.path.join(root, "annotations", f"{split}.json"), os.path.join(root, split, "labels.json")]
    for path in places:
        if os.path.isfile(path):
            return path
    raise DatasetError(
        f"{root}: has neither annotations/{split}.json nor {split}/labels.json. Unpack the archive of the paper's "
        f"authors there, or set DETECTRON2_DATASETS to the folder that holds {os.path.basename(root)}/"
    )


def _check_categories(json_file: str, document: dict) -> None:
    known = {name: i for i, name in enumerate(IMAGENET_VID_WNIDS, start=1)}
    categories = document.get("categories", [])
    if not isinstance(categories, list):
        raise DatasetError(f"{json_file}: 'categories' must be a list, found {type(categories).__name__}")
    for category in categories:
        name, number = (category.get(key) for key in ("name", "id")) if isinstance(category, dict) else (None, None)
        if isinstance(name, str) and known.get(name, number) != number:
            raise DatasetError(
                f"{json_file}: gives {name!r} the id {quote(number)}; in ImageNet VID it is {known[name]}"
            )


def _read_frames(json_file: str, document: dict) -> list[ArchiveFrame]:
    if not document["images"]:
        raise DatasetError(f"{json_file}: 'images' is empty, so there is no frame to read")
    frames, seen = [], set()
    for position, image in enumerate(document["images"]):
        where = f"{json_file}: images[{position}]"
        name = image.get("file_name") if isinstance(image, dict) else None
        number = whole_number(image.get("id")) if isinstance(name, str) else None
        if number is None:
            raise DatasetError(f"{where}: expected an object with 'id' and 'file_name', found {quote(image)}")
        if number in seen:
            raise DatasetError(f"{json_file}: id {number} occurs more than once in 'images'")
        seen.add(number)
        image = {**image, "file_name": name.replace("\\", "/")}
        fields = os.path.splitext(os.path.basename(image["file_name"]))[0].split("_")
        if len(fields) < 2 or not FRAME_NUMBER.fullmatch(fields[-1]) or not fields[-2]:
            raise DatasetError(f"{where}: {quote(name)} does not end in _<video>_<number>")
        frames.append(ArchiveFrame("_".join(fields[:-1]), fields[-2], fields[-1], image))
    return frames


def _split_sequences(frames: list[ArchiveFrame], *, is_still: bool) -> list[list[ArchiveFrame]]:
    """Runs of frames of one video whose numbers have no gap, in the order of videos and numbers."""
    ordered = sorted(frames, key=lambda frame: (frame.video, frame.stem, int(frame.number)))
    runs: list[list[ArchiveFrame]] = []
    for frame in ordered:
        last = runs[-1][-1] if runs else None
        follows = last is not None and frame.stem == last.stem and int(frame.number) - int(last.number) <= 1
        if follows and not is_still:
            runs[-1].append(frame)
        else:
            runs.append([frame])
    return runs


def _find_layout(split: str, root: str, frames: list[ArchiveFrame]) -> Callable[[ArchiveFrame], str]:
    """A function from a frame to its file below the root, for the tree that has any of them."""
    folders = IMAGE_FOLDERS.get(split, (split,))
    layouts: list[Callable[[ArchiveFrame], str]] = []
    for folder in folders:
        layouts += [
            lambda frame, folder=folder: f"{folder}/{os.path.basename(frame.image['file_name'])}",
            lambda frame, folder=folder: f"{folder}/frames/{os.path.basename(frame.image['file_name'])}",
            lambda frame, folder=folder: f"{folder}/frames/{frame.video}/{frame.number}.jpg",
        ]
    for layout in layouts:
        if any(os.path.isfile(os.path.join(root, layout(frame))) for frame in frames):
            return layout
    raise DatasetError(
        f"{root}: has none of the {len(frames)} frames of {split}; expected, for example, "
        + " or ".join(layout(frames[0]) for layout in layouts)
    )


def _prepare_annotations(
    json_file: str, document: dict, images: dict[int, dict], names: dict[int, str]
) -> tuple[list, list[BadVideo]]:
    """Annotations with boxes cut off at the edges of their images, and the videos with boxes of no area."""
    kept, without_area = [], defaultdict(list)
    for annotation in document["annotations"]:
        image = images.get(whole_number(annotation.get("image_id"))) if isinstance(annotation, dict) else None
        box = annotation.get("bbox") if image is not None else None
        numbers = [*box, image.get("width"), image.get("height")] if isinstance(box, list) and image else []
        usable = len(numbers) == 6 and all(map(is_finite, numbers))
        if not usable:  # which the check of the whole document reports
            kept.append(annotation)
            continue
        clipped = clip_box(box, image["width"], image["height"])
        if clipped[2] > 0 and clipped[3] > 0:
            kept.append({**annotation, "video_id": image["video_id"], "bbox": clipped})
        else:
            reason = f"{json_file}: annotation {annotation.get('id')}, of {image['file_name']}, has a box of no area"
            without_area[image["video_id"]].append(Defect(json_file, f"{reason} in its image ({box})"))
    return kept, [BadVideo(i, names[i], tuple(defects)) for i, defects in sorted(without_area.items())]
