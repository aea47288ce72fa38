"""Registration of video data sets in Detectron2's catalogs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..errors import DatasetError
from .builtin import BUILTIN_COCO_VID, IMAGENET_VID_ARCHIVE_FOLDER, IMAGENET_VID_FOLDER, IMAGENET_VID_WNIDS
from .coco_vid import parse_coco_vid
from .foreign_frames import complete_frames
from .imagenet_vid.archive import ARCHIVE_SPLITS, load_archive
from .imagenet_vid.official import OFFICIAL_SPLITS, load_official
from .read_rules import DEFAULT_RULES, ReadRules
from .video_data import STOP, BadVideo, VideoData, check_on_bad_video, drop_bad_videos, refuse_bad_videos

EVALUATOR_TYPE = "coco_vid"

Loader = Callable[[bool, ReadRules], VideoData]
"""Loads a data set; called with True, it raises DatasetError for unusable videos. Rules matter to COCO-VID files."""


def register_coco_vid(name: str, json_file: str, root: str) -> None:
    """Register a COCO-VID annotation file, whose file names are relative to `root`, as data set `name`.

    The file is read when the data set is loaded. Registering the same again changes nothing; raises
    DatasetError if the name already stands for other data.
    """
    json_file, root = os.path.abspath(json_file), os.path.abspath(root)
    if name in DatasetCatalog.list():
        known = MetadataCatalog.get(name)
        if (known.get("json_file"), known.get("image_root")) != (json_file, root):
            raise DatasetError(f"data set name '{name}' is already taken by {known.get('json_file', 'other data')}")
        return
    _register(name, lambda strict, rules: _load_coco_vid(name, json_file, root, None, strict, rules))
    _set_metadata(name, json_file=json_file, image_root=root)


def register_test_json(json_file: str, root: str | None = None) -> str:
    """Register an annotation file under a name made from its path and return the name, for DATASETS.TEST."""
    name = f"coco_vid:{os.path.abspath(json_file)}"
    register_coco_vid(name, json_file, default_test_root(json_file) if root is None else root)
    return name


def register_paths(names: Iterable[str]) -> list[str]:
    """The names of data sets, of which one that ends in .json and is not registered is the path of a COCO-VID file."""
    known = DatasetCatalog.list()
    return [register_test_json(name) if name.endswith(".json") and name not in known else name for name in names]


def default_test_root(json_file: str) -> str:
    """The folder of an annotation file, or that folder's parent where the folder is called `annotations`."""
    folder = os.path.dirname(os.path.abspath(json_file))
    return os.path.dirname(folder) if os.path.basename(folder) == "annotations" else folder


def register_builtin_datasets() -> None:
    """Register the data sets of builtin.py and of ImageNet VID; those that are registered already are left alone."""
    for name, (folder, json_name, classes) in BUILTIN_COCO_VID.items():
        if name not in DatasetCatalog.list():
            item = (name, folder, json_name, classes)
            _register(name, lambda strict, rules, item=item: _load_builtin(*item, strict, rules))
            _set_metadata(name, thing_classes=list(classes))
    loaders = {name: lambda strict, rules, name=name: _load_official(name) for name in OFFICIAL_SPLITS}
    for split in ARCHIVE_SPLITS:
        loaders[f"imagenet_vid_archive_{split}"] = lambda strict, rules, split=split: _load_archive(split)
    for name, load in loaders.items():
        if name not in DatasetCatalog.list():
            _register(name, load)
            _set_metadata(
                name,
                thing_classes=list(IMAGENET_VID_WNIDS),
                thing_dataset_id_to_contiguous_id={i + 1: i for i in range(len(IMAGENET_VID_WNIDS))},
                wnids=list(IMAGENET_VID_WNIDS.values()),
            )


def load_frames(
    name: str, on_bad_video: str = STOP, rules: ReadRules = DEFAULT_RULES
) -> tuple[list[dict], list[BadVideo]]:
    """The frames of a registered data set, and the videos among them that were left out.

    Raises DatasetError for a name that is not registered and, with "stop", if a video is known to be unusable. With
    "skip", such videos are left out and named in the log. What is only found in reading a frame is the reader's
    VideoReadError. Frames that Detectron2 or other code has registered are completed by what it does not know of.
    """
    check_on_bad_video(on_bad_video, "TEST.ON_BAD_VIDEO (in training DATALOADER.ON_BAD_VIDEO)")
    if name not in DatasetCatalog.list():
        known = ", ".join(sorted(DatasetCatalog.list()))
        raise DatasetError(f"data set '{name}' is not registered; known data sets: {known}")
    load = MetadataCatalog.get(name).get("load_video_data")
    if load is None:
        entries = DatasetCatalog.get(name)  # which may tell the classes
        classes = MetadataCatalog.get(name).get("thing_classes")
        return complete_frames(name, entries, None if classes is None else len(classes)), []
    if on_bad_video == STOP:
        return load(True, rules).frames, []
    data = load(False, rules)
    return drop_bad_videos(name, data.frames, data.bad_videos), data.bad_videos


def load_video_data(name: str, rules: ReadRules = DEFAULT_RULES) -> VideoData:
    """All that is known about a registered data set, unusable videos included. Raises DatasetError."""
    load = MetadataCatalog.get(name).get("load_video_data") if name in DatasetCatalog.list() else None
    if load is None:
        known = ", ".join(sorted(n for n in DatasetCatalog.list() if MetadataCatalog.get(n).get("load_video_data")))
        raise DatasetError(f"'{name}' is no registered video data set; there are: {known}")
    return load(False, rules)


def _register(name: str, load: Loader) -> None:
    def load_and_describe(strict: bool, rules: ReadRules) -> VideoData:
        data = load(strict, rules)
        if strict:
            refuse_bad_videos(f"data set '{name}'", data.bad_videos)
        _set_metadata(
            name,
            thing_classes=data.classes,
            thing_dataset_id_to_contiguous_id={category: i for i, category in enumerate(data.category_ids)},
            video_names=data.video_names,
        )
        return data

    DatasetCatalog.register(name, lambda: load_and_describe(True, DEFAULT_RULES).frames)
    _set_metadata(name, evaluator_type=EVALUATOR_TYPE, load_video_data=load_and_describe)


def _load_coco_vid(
    name: str, json_file: str, root: str, classes: list[str] | None, strict: bool, rules: ReadRules
) -> VideoData:
    data = parse_coco_vid(json_file, root, strict=strict, rules=rules)
    if classes is not None and data.classes != list(classes):
        raise DatasetError(f"{json_file}: has the classes {data.classes}, but data set '{name}' has {list(classes)}")
    _set_metadata(name, json_file=json_file, image_root=root)
    return data


def _load_builtin(
    name: str, folder: str, json_name: str, classes: list[str], strict: bool, rules: ReadRules
) -> VideoData:
    json_file, root = _locate(folder, json_name)
    return _load_coco_vid(name, json_file, root, classes, strict, rules)


def _load_official(name: str) -> VideoData:
    root = dataset_folder(IMAGENET_VID_FOLDER)
    _set_metadata(name, image_root=root, image_ids_are_frame_numbers=True)
    return load_official(name, root)


def _load_archive(split: str) -> VideoData:
    root = dataset_folder(IMAGENET_VID_ARCHIVE_FOLDER)
    _set_metadata(f"imagenet_vid_archive_{split}", image_root=root)
    return load_archive(split, root)


def dataset_folder(name: str) -> str:
    """Where a builtin data set's folder (such as "demo_vid") is, or would be, under DETECTRON2_DATASETS."""
    # Read on each call, so that setting the variable after the import still works.
    return os.path.join(os.path.expanduser(os.environ.get("DETECTRON2_DATASETS", "datasets")), name)


def _locate(folder: str, json_name: str) -> tuple[str, str]:
    root = dataset_folder(folder)
    json_file = os.path.join(root, *json_name.split("/"))
    if not os.path.isfile(json_file):
        raise DatasetError(
            f"{json_file}: does not exist. Put the data set there, or set DETECTRON2_DATASETS to the folder "
            f"that holds {folder}/"
        )
    return json_file, root


def check_classes(name: str, num_classes: int) -> None:
    """Raise DatasetError unless a loaded data set has as many classes as the model."""
    classes = MetadataCatalog.get(name).get("thing_classes")
    if classes is not None and len(classes) != num_classes:
        raise DatasetError(
            f"data set '{name}' has {len(classes)} classes, but the model {num_classes}: set "
            f"MODEL.ROI_HEADS.NUM_CLASSES to {len(classes)} and use weights trained for these classes"
        )


def _set_metadata(name: str, **values: object) -> None:
    metadata = MetadataCatalog.get(name)
    for key, value in values.items():
        # Metadata refuses to change a value; data that moved or was rendered again may do so.
        vars(metadata).pop(key, None)
        setattr(metadata, key, value)
