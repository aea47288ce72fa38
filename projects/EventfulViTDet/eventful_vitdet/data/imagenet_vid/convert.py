"""From ImageNet's own layout to a COCO-VID file and back.

Boxes, tracks, flags (occluded, generated, iscrowd), frame numbers and image ids survive both ways, boxes to the last
digit. What a COCO-VID file has beyond that (areas, other keys) is not carried, and videos are renumbered. Objects of
classes outside of the 30 are left out, as in loading.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import IO

from tqdm import tqdm

from ...errors import DatasetError, FileError
from ...files import open_atomically, write_atomically
from ...video import encode_jpeg
from ..annotation_file import is_box, quote, whole_number
from ..builtin import IMAGENET_VID_WNIDS
from ..coco_vid import FLAGS, group_by_video, parse_document, read_video_document
from ..listed_frames import iterate_listed_frames
from .box_clipping import clip_box
from .official import OfficialData, read_official
from .xml_files import ABSENT, MAX_PIXELS, XmlFrame, XmlObject, format_xml

JPEG_QUALITY = 95
MAX_FOLDER_BYTES = 255
XML_BOX = "xml_box"
"""Key of a COCO-VID annotation: the box of the XML file, [x, y, width, height], where `bbox` is only its part inside of
the image."""

ROUNDING = 1e-3
"""Pixels that a program which read and wrote a COCO-VID file may have moved a corner."""


def official_to_coco(name: str, root: str, output: str) -> tuple[int, int, int]:
    """Write a data set of OFFICIAL_SPLITS below `root` as a COCO-VID file, whose file names are relative to `root`.

    Returns the numbers of videos, frames and annotations. Raises DatasetError, also if an XML file cannot be used.
    """
    data = read_official(name, root)
    defects = data.defects()
    if defects:
        raise DatasetError(f"{len(defects)} XML files cannot be used, the first: {defects[0][1].reason}")
    categories = [{"id": i, "name": n, "wnid": w} for i, (n, w) in enumerate(IMAGENET_VID_WNIDS.items(), start=1)]
    videos = [{"id": position + 1, "name": video.name} for position, video in enumerate(data.videos)]
    with open_atomically(output) as file:
        file.write(f'{{"images_as_stored": true,\n"categories": {json.dumps(categories)}'.encode())
        _write_table(file, "videos", videos)
        _write_table(file, "images", _coco_images(data))
        _write_table(file, "annotations", _coco_annotations(data))
        file.write(b"}\n")
    return len(videos), len(data.index.sizes), len(data.index.boxes)


def _write_table(file: IO[bytes], name: str, entries: Iterable[dict]) -> None:
    """One entry at a time: all of them would take gigabytes."""
    file.write(f',\n"{name}": ['.encode())
    for i, entry in enumerate(entries):
        file.write(((",\n" if i else "\n") + json.dumps(entry)).encode())
    file.write(b"]")


def _coco_images(data: OfficialData) -> Iterator[dict]:
    for (position, frame, image_id), (width, height) in zip(data.frames(), data.index.sizes.tolist()):
        yield {
            "id": image_id,
            "video_id": position + 1,
            "frame_id": frame,
            "file_name": data.image_name(position, frame),
            "width": width,
            "height": height,
        }


def _coco_annotations(data: OfficialData) -> Iterator[dict]:
    index, annotation_id = data.index, 0
    for i, (position, _, image_id) in enumerate(data.frames()):
        for row in range(index.box_starts[i], index.box_starts[i + 1]):
            annotation_id += 1
            box = [_plain(value) for value in index.boxes[row].tolist()]
            clipped = clip_box(box, *index.sizes[i].tolist())
            track, (*flags, crowd) = int(index.tracks[row]), index.flags[row].tolist()
            yield {
                "id": annotation_id,
                "image_id": image_id,
                "video_id": position + 1,
                "category_id": int(index.classes[row]) + 1,
                "bbox": clipped,
                "area": clipped[2] * clipped[3],
                "iscrowd": max(0, crowd),
                **({} if track == ABSENT else {"instance_id": track}),
                **{key: flag for key, flag in zip(FLAGS, flags) if flag != ABSENT},
                **({} if clipped == box else {XML_BOX: box}),
            }


def _plain(value: float) -> int | float:
    return int(value) if value == int(value) else value


def coco_to_official(
    json_file: str, json_root: str, root: str, *, kind: str = "VID", part: str = "val", frames: str = "link"
) -> tuple[int, int]:
    """Write a COCO-VID or YouTube-VIS file, whose file names are relative to `json_root`, in the layout of ILSVRC2015
    below `root`. Masks are left out.

    Args:
        kind: "VID", or "DET" for images, each of which is a video of one frame.
        part: "train" or "val".
        frames: "link" makes symbolic links to image files and "copy" copies them; frames of video files are written
            as JPEG in both cases. "none" writes annotations only.

    The list is written last, so that an interrupted conversion is not mistaken for a complete one. Nothing that exists
    is overwritten. Returns the numbers of videos and frames. Raises DatasetError.
    """
    lists = {"VID": f"VID_{part}_frames.txt", "DET": f"DET_{part}_30classes.txt"}
    list_path = os.path.join(root, "ImageSets", "VID", lists[kind])
    for path in (list_path, *(os.path.join(root, top, kind, part) for top in ("Annotations", "Data"))):
        if os.path.lexists(path):
            raise DatasetError(f"{path}: exists already; choose another folder, or delete it")
    document, row_names = read_video_document(json_file, json_root)
    data = parse_document(json_file, json_root, document, strict=frames != "none", names=row_names)
    wnids = _wnids_by_category(json_file, document["categories"])
    sizes = {frame["image_id"]: (frame["width"], frame["height"]) for frame in data.frames}
    objects: dict[int, list[XmlObject]] = defaultdict(list)
    for annotation in document["annotations"]:
        size = sizes[annotation["image_id"]]
        if min(clip_box(annotation["bbox"], *size)[2:]) > 0:  # else it is outside: left out
            objects[annotation["image_id"]].append(_xml_object(json_file, annotation, wnids, size))

    videos = group_by_video(data.frames)
    names = _official_names(json_file, videos, data.video_names, kind, part)
    lines = []
    for video in tqdm(videos, desc="writing videos", unit="video", mininterval=1.0, delay=2.0):
        name = names[video[0]["video_id"]]
        stems = [name if kind == "DET" else f"{name}/{frame['frame_id']:06d}" for frame in video]
        _write_annotations(video, [os.path.join(root, "Annotations", kind, f"{stem}.xml") for stem in stems], objects)
        if frames != "none":
            _write_images(video, [os.path.join(root, "Data", kind, f"{stem}.JPEG") for stem in stems], frames)
        lines += [f"{stem} {frame['image_id']}\n" for frame, stem in zip(video, stems)]
    write_atomically(list_path, "".join(lines))
    return len(videos), len(data.frames)


def _wnids_by_category(json_file: str, categories: list[dict]) -> dict[int, str]:
    known = set(IMAGENET_VID_WNIDS.values())
    wnids = {item["id"]: item.get("wnid", IMAGENET_VID_WNIDS.get(item["name"])) for item in categories}
    for item in categories:
        wnid = wnids[item["id"]]
        if not isinstance(wnid, str) or wnid not in known:
            raise DatasetError(
                f"{json_file}: category {item['name']!r} is none of the 30 classes of ImageNet VID, and their layout "
                "has no room for others"
            )
    return wnids


def _xml_object(json_file: str, annotation: dict, wnids: dict[int, str], size: tuple[int, int]) -> XmlObject:
    where = f"{json_file}: annotation {annotation['id']}"
    given = annotation.get("instance_id")
    track = ABSENT if given is None else whole_number(given)
    if track is None or abs(track) >= 2**31:
        raise DatasetError(f"{where} has instance_id {quote(given)}; expected an integer below 2^31")
    return XmlObject(
        name=wnids[annotation["category_id"]],
        box=_whole_box(where, annotation, size),
        track=track,
        **{key: int(annotation.get(key, ABSENT)) for key in FLAGS},
        crowd=1 if annotation.get("iscrowd", 0) else ABSENT,
    )


def _whole_box(where: str, annotation: dict, size: tuple[int, int]) -> tuple[float, ...]:
    """The box before it was clipped. Raises DatasetError where `bbox` has been changed since, or was made otherwise."""
    clipped = annotation["bbox"]
    box = annotation.get(XML_BOX, clipped)
    if not is_box(box):
        raise DatasetError(f"{where} has {XML_BOX} {quote(box)}; expected four numbers")
    x, y, width, height = box
    if max(map(abs, (x, y, x + width, y + height))) >= MAX_PIXELS:
        raise DatasetError(f"{where} has the box {quote(box)}; the XML files hold corners below {MAX_PIXELS} pixels")
    if XML_BOX in annotation and any(abs(a - b) > ROUNDING for a, b in zip(clip_box(box, *size), clipped)):
        raise DatasetError(
            f"{where} has {XML_BOX} {quote(box)}, but bbox {quote(clipped)} is not its part inside of the image; "
            f"delete {XML_BOX} if bbox is right"
        )
    return tuple(box)


def _official_names(
    json_file: str, videos: list[list[dict]], names: dict[int, str], kind: str, part: str
) -> dict[int, str]:
    """The path of every video below Annotations/<kind>."""
    taken: dict[str, int] = {}
    for video in videos:
        name = names[video[0]["video_id"]].replace("\\", "/")
        path = name if name.startswith(f"{part}/") else f"{part}/{name}"
        forbidden = any(map(str.isspace, name)) or any(len(os.fsencode(p)) > MAX_FOLDER_BYTES for p in path.split("/"))
        if forbidden or not {"", ".", ".."}.isdisjoint(path.split("/")):
            raise DatasetError(f"{json_file}: a video's name becomes a folder and cannot be {quote(name)}")
        if taken.setdefault(path, video[0]["video_id"]) != video[0]["video_id"]:
            raise DatasetError(f"{json_file}: two videos have the name {name!r}")
        if kind == "DET" and [frame["frame_id"] for frame in video] != [0]:
            raise DatasetError(f"{json_file}: video {name!r} is more than frame 0, the one that an image of DET has")
    return {video_id: path for path, video_id in taken.items()}


def _write_annotations(video: list[dict], paths: list[str], objects: dict[int, list[XmlObject]]) -> None:
    for frame, path in zip(video, paths):
        content = XmlFrame(frame["width"], frame["height"], objects[frame["image_id"]])
        folder, _, file = path.rpartition("/")
        write_atomically(path, format_xml(os.path.basename(folder), file[: -len(".xml")], content))


def _write_images(video: list[dict], paths: list[str], mode: str) -> None:
    if video[0]["is_video_file"]:
        for path, (_, image) in zip(paths, iterate_listed_frames(video)):
            write_atomically(path, encode_jpeg(image, JPEG_QUALITY))
        return
    for path, frame in zip(paths, video):
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if mode == "link":
                os.symlink(os.path.abspath(frame["file_name"]), path)
            else:
                shutil.copyfile(frame["file_name"], path)
        except OSError as error:
            raise FileError(error.errno, error.strerror, path) from error
