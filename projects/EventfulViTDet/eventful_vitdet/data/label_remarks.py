"""What is odd about the labels of a data set, though they can be read: for its check."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from detectron2.structures import BoxMode

from .coco_vid import NO_TRACK, identity_of
from .segmentations import as_run_lengths
from .video_data import VideoData

MASK_BOX_IOU = 0.5
"""IoU of a box and the box around its mask, below which one of the two is wrong."""

NO_IDENTITY = "objects have no identity (instance_id), while others have one"
FAR_MASKS = f"boxes are not around their masks (IoU below {MASK_BOX_IOU})"
TWICE = "identities occur more than once in their frame"
SEVERAL_CLASSES = "tracks have more than one class"


def label_remarks(data: VideoData) -> list[str]:
    """A line for each kind of oddity, which says how often it occurs and where first. Crowds are not looked at."""
    found: dict[str, list[str]] = defaultdict(list)
    classes: dict[tuple, set[int]] = defaultdict(set)
    for frame in data.frames:
        video = f"video {data.video_names.get(frame['video_id'], frame['video_id'])}"
        objects = [annotation for annotation in frame["annotations"] if not annotation.get("iscrowd", 0)]
        for oddity in _oddities(frame, objects):
            found[oddity].append(f"frame {frame['frame_id']} of {video}")
        for identity, label in ((identity_of(entry), entry["category_id"]) for entry in objects):
            known = classes[video, identity]
            if identity != NO_TRACK and len(known) == 1 and label not in known:  # said once
                found[SEVERAL_CLASSES].append(f"instance_id {identity} of {video}")
            known.add(label)
    if all(identity == NO_TRACK for _, identity in classes):
        found.pop(NO_IDENTITY, None)  # a data set without any
    return [f"{len(places)} {oddity}, the first: {places[0]}" for oddity, places in found.items()]


def _oddities(frame: dict, objects: list[dict]) -> Iterator[str]:
    """Those of a frame by itself."""
    for annotation in objects:
        if "segmentation" in annotation and _overlap_of_mask(annotation, frame) < MASK_BOX_IOU:
            yield FAR_MASKS
    for identity, number in Counter(map(identity_of, objects)).items():
        if identity == NO_TRACK:
            yield from [NO_IDENTITY] * number
        elif number > 1:
            yield TWICE


def _overlap_of_mask(annotation: dict, frame: dict) -> float:
    """IoU of an object's box and the box around its mask."""
    from pycocotools import mask as coco_mask

    around = coco_mask.toBbox(as_run_lengths(annotation["segmentation"], frame["height"], frame["width"]))
    box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYWH_ABS)
    return float(coco_mask.iou([list(box)], [around.tolist()], [0])[0, 0])
