"""What is to be evaluated: the data sets of DATASETS.TEST and the folders of their results."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ..data.coco_vid import group_by_video
from ..data.read_rules import ReadRules
from ..data.registration import check_classes, load_frames, load_video_data
from ..data.segmentations import has_masks
from ..errors import EvaluationError
from ..files import make_writable_folder
from .fingerprint import hash_frames


@dataclass(frozen=True)
class VideoTestSet:
    """A data set that can be evaluated: it has as many classes as the model, and annotations, or a dense model's
    detections in their place."""

    name: str
    frames: list[dict]
    """Of the videos that can be used."""
    listed: list[dict]
    """The same and those of the videos that are left out, in the data set's order."""
    skipped: list[dict]
    """[{"video", "reason"}] of the videos that are left out, because they are known to be unusable."""

    @cached_property
    def videos(self) -> list[list[dict]]:
        """The frames by video."""
        return group_by_video(self.frames)

    @cached_property
    def is_annotated(self) -> bool:
        """Whether a frame has an annotation that counts, one that is no crowd."""
        return has_objects(self.frames)

    @cached_property
    def has_masks(self) -> bool:
        """Whether the objects' masks are annotated."""
        return has_masks(self.frames)

    @cached_property
    def classes(self) -> list[str]:
        """Name of each contiguous class."""
        classes = MetadataCatalog.get(self.name).get("thing_classes")
        if classes is None:
            raise EvaluationError(f"data set '{self.name}' names no classes: set thing_classes in its MetadataCatalog")
        return list(classes)

    @cached_property
    def category_ids(self) -> list[int]:
        """Id of each contiguous class in the data set's files."""
        contiguous = MetadataCatalog.get(self.name).get("thing_dataset_id_to_contiguous_id")
        if contiguous is None:  # as of a function that somebody registered: its classes are its ids
            return list(range(len(self.classes)))
        return sorted(contiguous, key=contiguous.__getitem__)

    @cached_property
    def hash(self) -> str:
        """Changes with frames, annotations and classes, but not when a file is found again that was missing."""
        return hash_frames(self.listed, self.classes)

    @cached_property
    def frame_numbers(self) -> dict[int, int]:
        """Number of each frame in ImageNet's submission format, by image_id: from 1 in the data set's order, or what
        the list gives that the data set is from."""
        if MetadataCatalog.get(self.name).get("image_ids_are_frame_numbers", False):
            return {frame["image_id"]: frame["image_id"] for frame in self.listed}
        return {frame["image_id"]: number for number, frame in enumerate(self.listed, start=1)}

    def video_name(self, video_id: int | str) -> str:
        """The name that the data set has for a video; else its id."""
        return str(MetadataCatalog.get(self.name).get("video_names", {}).get(video_id, video_id))


def load_test_set(cfg: CfgNode, name: str, *, annotated: bool = True) -> VideoTestSet:
    """Load a data set for evaluation; `annotated` asks for annotations. Raises DataError or EvaluationError."""
    rules = ReadRules.from_config(cfg)
    frames, bad = load_frames(name, cfg.TEST.ON_BAD_VIDEO, rules)
    check_classes(name, cfg.MODEL.ROI_HEADS.NUM_CLASSES)
    if annotated:
        check_annotated(name, frames)
    listed = load_video_data(name, rules).frames if bad else frames
    return VideoTestSet(name, frames, listed, [{"video": video.name, "reason": video.reason} for video in bad])


def load_test_frames(cfg: CfgNode, name: str) -> list[dict]:
    """The frames of a data set that can be evaluated. Raises DataError or EvaluationError."""
    return load_test_set(cfg, name).frames


def check_annotated(dataset_name: str, frames: list[dict]) -> None:
    """Raise EvaluationError unless a frame has an annotation that counts, one that is no crowd."""
    if not has_objects(frames):
        raise EvaluationError(
            f"data set '{dataset_name}' has no annotations (other than crowds): there is nothing to evaluate against, "
            "except the dense model: --budgets dense ... (or TEST.TUBE_AP True, which writes tracks for a server)"
        )


def has_objects(frames: Iterable[dict]) -> bool:
    """Whether there is an annotation that is no crowd."""
    return any(not annotation.get("iscrowd", 0) for frame in frames for annotation in frame["annotations"])


def folder_name(dataset_name: str) -> str:
    """What the folder of a data set's results is called where several data sets are evaluated."""
    return re.sub(r"[^\w.-]+", "_", dataset_name)


def result_folders(cfg: CfgNode) -> dict[str, str]:
    """The folder of each data set's results, which need not be there. Raises EvaluationError without a data set, or
    where two would have one folder."""
    names = list(cfg.DATASETS.TEST)
    if not names:
        raise EvaluationError("DATASETS.TEST is empty: name a registered data set, or give a file by --test-json")
    base = os.path.join(cfg.OUTPUT_DIR, "inference")
    folders = {name: base if len(names) == 1 else os.path.join(base, folder_name(name)) for name in names}
    owners: dict[str, str] = {}
    for name, folder in folders.items():
        if owners.setdefault(folder, name) != name:
            raise EvaluationError(
                f"DATASETS.TEST: '{owners[folder]}' and '{name}' would write their results to one folder, {folder}; "
                "evaluate one of them by itself, with another OUTPUT_DIR"
            )
    return folders


def make_result_folders(cfg: CfgNode) -> dict[str, str]:
    """Make `result_folders`, and make sure, before any work, that they can be written. Raises EvaluationError."""
    folders = result_folders(cfg)
    for folder in folders.values():
        try:
            make_writable_folder(folder)
        except OSError as error:
            raise EvaluationError(f"OUTPUT_DIR: cannot write to {folder} ({error.strerror})") from error
    return folders
