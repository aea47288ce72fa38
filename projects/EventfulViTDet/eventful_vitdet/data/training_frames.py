"""The frames that a training draws from: those of DATASETS.TRAIN, thinned out within each video."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ..errors import ConfigError, DatasetError
from .coco_vid import group_by_video
from .earlier_frames import attach_earlier
from .frame_cache import thin_frames
from .read_rules import ReadRules
from .registration import check_classes, load_frames, register_paths

logger = logging.getLogger(__name__)


def load_train_sets(cfg: CfgNode) -> list[list[dict]]:
    """The training frames of every data set in DATASETS.TRAIN, in their order.

    A name that ends in .json is the path of a COCO-VID file. Of every video, every DATALOADER.TRAIN_FRAME_STRIDE-th
    frame is taken, of these DATALOADER.FRAMES_PER_VIDEO evenly spaced ones, and of these, with
    DATALOADER.FILTER_EMPTY_ANNOTATIONS, those with an object. With DATALOADER.EARLIER_FRAMES, each has the frames
    before it (earlier_frames.py).

    Raises:
        DatasetError: nothing is left of a data set, or the data sets have different classes.
    """
    if not cfg.DATASETS.TRAIN:
        raise DatasetError("DATASETS.TRAIN is empty: name at least one registered data set")
    names = register_paths(cfg.DATASETS.TRAIN)
    sets = [_load_train_set(cfg, name) for name in names]
    check_same_classes(names)
    return sets


def _load_train_set(cfg: CfgNode, name: str) -> list[dict]:
    loader = cfg.DATALOADER
    usable, _ = load_frames(name, loader.ON_BAD_VIDEO, ReadRules.from_config(cfg))
    if loader.EARLIER_FRAMES:
        usable = attach_earlier(usable, loader.EARLIER_FRAMES)
    frames = thin_frames(usable, loader.TRAIN_FRAME_STRIDE)
    check_classes(name, cfg.MODEL.ROI_HEADS.NUM_CLASSES)
    listed, videos = len(frames), len(group_by_video(frames))
    frames = spread_frames(frames, loader.FRAMES_PER_VIDEO)
    if loader.FILTER_EMPTY_ANNOTATIONS:
        frames = [frame for frame in frames if any(not a.get("iscrowd", 0) for a in frame["annotations"])]
    if not frames:
        raise DatasetError(f"{name}: no frame has an annotation to train on")
    logger.info("training data, %s: %d of %d frames of %d videos or images", name, len(frames), listed, videos)
    return frames


def spread_frames(frames: Sequence[dict], per_video: int) -> list[dict]:
    """Keep this many evenly spaced frames of every video, from the middles of equal parts; 0 keeps all.

    A video that has fewer keeps all of its frames.
    """
    if per_video < 0:
        raise ConfigError(f"per_video (DATALOADER.FRAMES_PER_VIDEO) must be 0 or larger, found {per_video}")
    if per_video == 0:
        return list(frames)
    kept = []
    for video in group_by_video(frames):
        count = min(per_video, len(video))
        kept += [video[(2 * i + 1) * len(video) // (2 * count)] for i in range(count)]
    return kept


def check_same_classes(names: Sequence[str]) -> None:
    """Raise DatasetError if loaded data sets have other classes, or the same ones in another order, than the first."""
    classes = {name: MetadataCatalog.get(name).get("thing_classes") for name in names}
    known = {name: list(listed) for name, listed in classes.items() if listed is not None}
    for name, listed in known.items():
        first, expected = next(iter(known.items()))
        if listed != expected:
            number = next(i for i, pair in enumerate(zip(listed, expected)) if pair[0] != pair[1])
            raise DatasetError(
                f"DATASETS.TRAIN mixes data sets of different classes: class {number} is '{listed[number]}' in "
                f"{name}, but '{expected[number]}' in {first}"
            )
