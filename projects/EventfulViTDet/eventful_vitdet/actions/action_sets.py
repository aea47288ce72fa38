"""Data sets of clips by name, and from CSV files, in Detectron2's catalogs."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..data.registration import dataset_folder
from ..data.video_data import STOP, check_on_bad_video
from ..errors import DatasetError
from .clip import BadClip, Clip
from .clip_files import forget_listings
from .csv_rows import read_csv
from .epic_kitchens import COLUMNS as EPIC_COLUMNS
from .epic_kitchens import read_epic_kitchens
from .kinetics import COLUMNS as KINETICS_COLUMNS
from .kinetics import read_kinetics

EVALUATOR_TYPE = "actions"
BUILTIN = {
    "epic_kitchens_train": ("epic_kitchens", "EPIC_100_train.csv", "train"),
    "epic_kitchens_validation": ("epic_kitchens", "EPIC_100_validation.csv", "validation"),
    "kinetics400_train": ("kinetics400", "train.csv", "train"),
    "kinetics400_val": ("kinetics400", "val.csv", "val"),
    "synthetic_actions_train": ("synthetic_actions", "train.csv", "train"),
    "synthetic_actions_test": ("synthetic_actions", "test.csv", "test"),
}
"""Folder, CSV file and split of the data sets known by name."""
BUILTIN_HEADS = {"kinetics400_train": {"label": 400}, "kinetics400_val": {"label": 400}}
"""Heads of those whose classes are not EPIC-Kitchens' verbs and nouns."""
KNOWN_CLIPS = {"epic_kitchens_validation": 9_668, "epic_kitchens_train": 67_217}
"""Published numbers of clips."""


@dataclass(frozen=True)
class ActionSet:
    """The clips of a data set."""

    name: str
    clips: list[Clip]
    """Those that have a file, in the order of the CSV file."""
    bad_clips: list[BadClip]
    """Those that have none."""

    @property
    def hash(self) -> str:
        """Changes with clips, times and classes, but not with the folder that they lie in."""
        digest = hashlib.blake2b(digest_size=16)
        for clip in self.clips:
            entry = {**asdict(clip), "path": os.path.basename(clip.path), "place": ""}
            digest.update(json.dumps(entry, sort_keys=True).encode())
        return digest.hexdigest()


def register_builtin_action_sets() -> None:
    """Register EPIC-Kitchens 100, Kinetics-400 and the rendered actions, below DETECTRON2_DATASETS."""
    for name, (folder, csv_name, split) in BUILTIN.items():
        if name not in DatasetCatalog.list():
            _register(name, functools.partial(_builtin_place, folder, csv_name, split))


def register_action_csv(path: str, root: str | None = None) -> str:
    """Register a CSV file in the style of EPIC-Kitchens or Kinetics; returns the name, for DATASETS.TEST.

    Args:
        root: folder of its videos; None: that of the file.
    """
    path = os.path.abspath(path)
    name = f"actions:{path}"
    split = os.path.splitext(os.path.basename(path))[0].removeprefix("EPIC_100_")
    place = (path, os.path.abspath(root or os.path.dirname(path)), split)
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    _register(name, lambda: place)
    return name


def is_action_set(name: str) -> bool:
    """Whether a registered data set consists of clips."""
    return name in DatasetCatalog.list() and MetadataCatalog.get(name).get("evaluator_type") == EVALUATOR_TYPE


def load_action_set(name: str, heads: Mapping[str, int], on_bad_clip: str = STOP) -> ActionSet:
    """The clips of a registered data set.

    Args:
        heads: number of classes of each of the model's heads; {}: no labels are read.
        on_bad_clip: "stop": a clip without a file is an error; "skip": it is left out.

    Raises:
        ConfigError: `on_bad_clip` is neither.
        DatasetError: it is not there, or is damaged, or does not fit the model.
    """
    check_on_bad_video(on_bad_clip, "TEST.ON_BAD_VIDEO (in training DATALOADER.ON_BAD_VIDEO)")
    place = MetadataCatalog.get(name).get("action_place") if name in DatasetCatalog.list() else None
    if place is None:
        known = ", ".join(n for n in DatasetCatalog.list() if MetadataCatalog.get(n).get("action_place"))
        raise DatasetError(f"'{name}' is no registered data set of actions; there are: {known}")
    path, root, split = place()
    clips = read_clips(path, root, split, heads)
    bad = [BadClip(clip.clip_id, f"{clip.place}: {missing_file(clip, root)}") for clip in clips if not clip.path]
    if bad and on_bad_clip == STOP:
        raise DatasetError(
            f"data set '{name}': {bad[0].reason}"
            + (f", and {len(bad) - 1} more" if len(bad) > 1 else "")
            + '. TEST.ON_BAD_VIDEO "skip" leaves such clips out'
        )
    return ActionSet(name, [clip for clip in clips if clip.path], bad)


def missing_file(clip: Clip, root: str) -> str:
    """What to say about a clip without a file."""
    return f"there is no video or folder of frames for clip {clip.clip_id} below {root}"


def read_clips(path: str, root: str, split: str, heads: Mapping[str, int]) -> list[Clip]:
    """All clips of a CSV file, whose columns tell its style. Raises DatasetError."""
    forget_listings()
    rows = read_csv(path)
    columns = set(rows[0].values)
    if set(KINETICS_COLUMNS[1:]) <= columns:
        clips, _ = read_kinetics(rows, root, split, _only_head(path, heads, "label"))
    elif set(EPIC_COLUMNS) & columns:
        unknown = [head for head in heads if head not in ("verb", "noun")]
        if unknown:
            raise DatasetError(
                f"{path}: is in the style of EPIC-Kitchens, which has no classes for head {unknown[0]!r}"
            )
        clips = read_epic_kitchens(rows, root, split, heads)
    else:
        raise DatasetError(
            f"{path}: its columns are neither those of EPIC-Kitchens ({', '.join(EPIC_COLUMNS)}, verb_class, "
            f"noun_class) nor those of Kinetics ({', '.join(KINETICS_COLUMNS)})"
        )
    _check_unique(path, clips)
    return clips


def _check_unique(path: str, clips: list[Clip]) -> None:
    seen: dict[str, Clip] = {}
    for clip in clips:
        other = seen.setdefault(clip.clip_id, clip)
        if other is not clip:
            raise DatasetError(f"{clip.place}: clip {clip.clip_id} is already in {other.place.rpartition(', ')[2]}")


def _only_head(path: str, heads: Mapping[str, int], name: str) -> int | None:
    unknown = [head for head in heads if head != name]
    if unknown:
        raise DatasetError(f"{path}: is in the style of Kinetics, which has no classes for head {unknown[0]!r}")
    return heads.get(name)


def _builtin_place(folder: str, csv_name: str, split: str) -> tuple[str, str, str]:
    root = dataset_folder(folder)
    path = os.path.join(root, csv_name)
    if not os.path.isfile(path):
        raise DatasetError(
            f"{path}: does not exist. Put the data set there, or set DETECTRON2_DATASETS to the folder that holds "
            f"{folder}/"
        )
    return path, root, split


def _register(name: str, place) -> None:
    def load() -> list[dict]:
        return [asdict(clip) for clip in read_clips(*place(), {})]

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(evaluator_type=EVALUATOR_TYPE, action_place=place)
