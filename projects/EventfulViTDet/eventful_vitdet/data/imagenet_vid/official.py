"""ImageNet VID and the 30 classes of ImageNet DET, straight from the folders of ILSVRC2015.

ILSVRC2015/
    Data/{VID,DET}/...              frames NNNNNN.JPEG in a folder for each video; images
    Annotations/{VID,DET}/...       an XML file for each, in folders of the same names
    ImageSets/VID/*.txt             lists; ImageSets/ and Lists/ are looked through too
"""

from __future__ import annotations

import gc
import logging
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat

import numpy as np
from detectron2.structures import BoxMode

from ...errors import DatasetError
from ..builtin import IMAGENET_VID_WNIDS
from ..coco_vid import FLAGS, regular_step
from ..video_data import BadVideo, Defect, VideoData
from .box_clipping import clip_box
from .cache import cached_index, fingerprint_files
from .index import AnnotationIndex, build_index, xml_path
from .lists import ListedVideo, list_folder, read_list
from .xml_files import ABSENT

LIST_FOLDERS = ("ImageSets/VID", "ImageSets", "Lists", "Lists/VID")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class OfficialSplit:
    """Which part of ILSVRC2015 a data set is.

    `kind` is the folder below Data/ and Annotations/ ("VID", "DET"), `part` the folder below that. The first of `lists`
    that exists says what belongs to it; without lists, it is every frame that has annotations.
    """

    kind: str
    part: str
    lists: tuple[str, ...] = ()

    @property
    def is_still(self) -> bool:
        """Images instead of videos; they also show classes that the data set does not have."""
        return self.kind == "DET"


OFFICIAL_SPLITS = {
    "imagenet_vid_train": OfficialSplit("VID", "train", ("VID_train_15frames.txt", "VID_train_frames.txt")),
    "imagenet_vid_train_all": OfficialSplit("VID", "train"),
    "imagenet_vid_val": OfficialSplit("VID", "val", ("VID_val_videos.txt", "VID_val_frames.txt", "val.txt")),
    "imagenet_det_30_train": OfficialSplit("DET", "train", ("DET_train_30classes.txt",)),
}


@dataclass(frozen=True)
class OfficialData:
    """The listed videos of a split with their annotations; `origin` is the list they come from."""

    root: str
    split: OfficialSplit
    origin: str
    videos: list[ListedVideo]
    index: AnnotationIndex

    def frames(self) -> Iterator[tuple[int, int, int]]:
        """(position of the video, frame number, image id) of every frame, in the order of the index."""
        for position, video in enumerate(self.videos):
            yield from zip(repeat(position), video.frames, video.image_ids)

    def defects(self) -> list[tuple[int, Defect]]:
        """The position of the video and the XML file that cannot be used, of every frame that has such a one."""
        if not self.index.defects:
            return []
        positions = [position for position, _, _ in self.frames()]
        folder = os.path.join(self.root, "Annotations", self.split.kind)
        reasons = [(positions[i], os.path.join(folder, text)) for i, text in sorted(self.index.defects.items())]
        return [(position, Defect(reason.partition(": ")[0], reason)) for position, reason in reasons]

    def image_name(self, position: int, frame: int) -> str:
        """The image file of a frame, below the root."""
        name = self.videos[position].name
        stem = name if self.split.is_still else f"{name}/{frame:06d}"
        return f"Data/{self.split.kind}/{stem}.JPEG"


def load_official(name: str, root: str) -> VideoData:
    """Load a data set of OFFICIAL_SPLITS from the folder ILSVRC2015. Raises DatasetError.

    Videos with a frame or XML file that is absent, or an XML file that cannot be used, are the result's bad videos.
    """
    data = read_official(name, root)
    images = os.path.join(root, "Data", data.split.kind)
    if not os.path.isdir(images):
        raise DatasetError(f"{images}: does not exist; expected the images of '{name}' there")
    classes = list(IMAGENET_VID_WNIDS)
    with _paused_collector():
        frames = _make_frames(data)
    return VideoData(
        classes=classes,
        category_ids=list(range(1, len(classes) + 1)),
        frames=frames,
        video_names={position + 1: video.name for position, video in enumerate(data.videos)},
        bad_videos=_find_bad_videos(data),
        other_classes=data.index.other_classes,
    )


def read_official(name: str, root: str) -> OfficialData:
    """Read the list and the annotations of a data set. Raises DatasetError if there are none."""
    split = OFFICIAL_SPLITS[name]
    annotations = os.path.join(root, "Annotations", split.kind)
    if not os.path.isdir(annotations):
        raise DatasetError(
            f"{annotations}: does not exist. Put the folder ILSVRC2015 of ImageNet {split.kind} there, or set "
            "DETECTRON2_DATASETS to the folder that holds it"
        )
    origin, content, videos = _read_videos(name, split, root, annotations)

    def paths(video: ListedVideo) -> list[str]:
        return [xml_path(annotations, video, frame, split.is_still) for frame in video.frames]

    def build() -> AnnotationIndex:
        wnids = list(IMAGENET_VID_WNIDS.values())
        return build_index(annotations, videos, wnids, is_still=split.is_still, may_have_others=split.is_still)

    index = cached_index(root, name, fingerprint_files(content, videos, paths), build)
    logger.info("%s: %d frames of %d videos, as listed by %s", name, len(index.sizes), len(videos), origin)
    if index.other_classes:
        count = sum(index.other_classes.values())
        logger.info("%s: left out %d objects of %d other classes", name, count, len(index.other_classes))
    return OfficialData(root, split, origin, videos, index)


def _read_videos(name: str, split: OfficialSplit, root: str, annotations: str) -> tuple[str, str, list[ListedVideo]]:
    """Where the list is, its content, and the videos in it."""
    if not split.lists:
        return annotations, "", list_folder(annotations, split.part)
    places = [os.path.join(root, folder, file) for file in split.lists for folder in LIST_FOLDERS]
    path = next(filter(os.path.isfile, places), None)
    if path is None:
        raise DatasetError(
            f"{root}: has no list for '{name}'. Put {' or '.join(split.lists)} into {root}/{LIST_FOLDERS[0]}"
            + (" (the data set imagenet_vid_train_all needs none)" if name == "imagenet_vid_train" else "")
        )
    try:
        with open(path, encoding="utf-8-sig") as file:
            content = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read as a list ({error})") from error
    return path, content, read_list(path, content, split.part)


@contextmanager
def _paused_collector() -> Iterator[None]:
    """Without Python's garbage collector, which would walk through a million new dicts again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _make_frames(data: OfficialData) -> list[dict]:
    index, steps = data.index, [regular_step(list(video.frames)) for video in data.videos]
    sizes, starts = index.sizes.tolist(), index.box_starts.tolist()
    annotations = list(_make_annotations(index))
    return [
        {
            "file_name": os.path.join(data.root, data.image_name(position, frame)),
            "is_video_file": False,
            "video_id": position + 1,
            "frame_id": frame,
            "frame_step": steps[position],
            "image_id": image_id,
            "width": width,
            "height": height,
            "as_stored": True,  # boxes and sizes do not know of EXIF orientations
            "annotations": annotations[start:end],
        }
        for (position, frame, image_id), (width, height), start, end in zip(data.frames(), sizes, starts, starts[1:])
    ]


def _make_annotations(index: AnnotationIndex) -> Iterator[dict]:
    limits = index.sizes.repeat(np.diff(index.box_starts), axis=0).tolist()
    columns = (index.boxes.tolist(), limits, index.classes.tolist(), index.tracks.tolist(), index.flags.tolist())
    for whole, (width, height), category, track, (*flags, crowd) in zip(*columns):
        box = clip_box(whole, width, height)
        yield {
            "bbox": box,
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": category,
            "instance_id": track,
            "iscrowd": max(0, crowd),
            "area": box[2] * box[3],
            **{key: flag for key, flag in zip(FLAGS, flags) if flag != ABSENT},
        }


def _find_bad_videos(data: OfficialData) -> list[BadVideo]:
    """Videos without frames, with an XML file that cannot be used, or with an image that is not there."""
    defects: dict[int, list[Defect]] = defaultdict(list)
    for position, video in enumerate(data.videos):
        if not video.frames:
            defects[position].append(Defect(data.origin, f"{data.origin}: lists no frame of {video.name}"))
    for position, defect in data.defects():
        defects[position].append(defect)
    for position, path in _absent_images(data):
        defects[position].append(Defect(path, f"{path}: does not exist, but {data.origin} lists it"))
    return [BadVideo(i + 1, data.videos[i].name, tuple(found)) for i, found in sorted(defects.items())]


def _absent_images(data: OfficialData) -> Iterator[tuple[int, str]]:
    present: dict[str, set[str]] = {}
    for position, frame, _ in data.frames():
        folder, _, name = os.path.join(data.root, data.image_name(position, frame)).rpartition("/")
        if folder not in present:
            present[folder] = _files_in(folder)
        if name not in present[folder]:
            yield position, f"{folder}/{name}"


def _files_in(folder: str) -> set[str]:
    """The names of its files, without links that lead nowhere; empty if there is no such folder."""
    if not os.path.isdir(folder):
        return set()
    with os.scandir(folder) as entries:  # which knows plain files as such; only links cost another look
        return {entry.name for entry in entries if entry.is_file(follow_symlinks=False) or os.path.isfile(entry.path)}
