"""Registration of video data sets in Detectron2's catalogs."""

from __future__ import annotations

import os
from collections.abc import Callable

from detectron2.data import DatasetCatalog, MetadataCatalog

from .builtin import BUILTIN_COCO_VID, IMAGENET_VID_NAMES, IMAGENET_VID_WNIDS
from .coco_vid import parse_coco_vid
from .errors import DatasetError

EVALUATOR_TYPE = "coco_vid"


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
    _register(name, lambda: (json_file, root), None)
    _set_metadata(name, json_file=json_file, image_root=root)


def register_test_json(json_file: str, root: str | None = None) -> str:
    """Register an annotation file under a name made from its path and return the name, for DATASETS.TEST."""
    name = f"coco_vid:{os.path.abspath(json_file)}"
    register_coco_vid(name, json_file, default_test_root(json_file) if root is None else root)
    return name


def default_test_root(json_file: str) -> str:
    """The folder of an annotation file, or that folder's parent where the folder is called `annotations`."""
    folder = os.path.dirname(os.path.abspath(json_file))
    return os.path.dirname(folder) if os.path.basename(folder) == "annotations" else folder


def register_builtin_datasets() -> None:
    """Register the data sets of builtin.py; those that are registered already are left alone."""
    for name, (folder, json_name, classes) in BUILTIN_COCO_VID.items():
        if name not in DatasetCatalog.list():
            _register(name, lambda folder=folder, json_name=json_name: _locate(folder, json_name), classes)
    for name in IMAGENET_VID_NAMES:
        if name not in DatasetCatalog.list():
            DatasetCatalog.register(name, lambda name=name: _refuse_imagenet_vid(name))
            _set_metadata(
                name,
                thing_classes=list(IMAGENET_VID_WNIDS),
                thing_dataset_id_to_contiguous_id={i + 1: i for i in range(len(IMAGENET_VID_WNIDS))},
                wnids=list(IMAGENET_VID_WNIDS.values()),
                evaluator_type=EVALUATOR_TYPE,
            )


def _register(name: str, locate: Callable[[], tuple[str, str]], classes: list[str] | None) -> None:
    DatasetCatalog.register(name, lambda: _load(name, locate, classes))
    _set_metadata(name, evaluator_type=EVALUATOR_TYPE)
    if classes is not None:
        _set_metadata(name, thing_classes=list(classes))


def _load(name: str, locate: Callable[[], tuple[str, str]], classes: list[str] | None) -> list[dict]:
    json_file, root = locate()
    data = parse_coco_vid(json_file, root)
    if classes is not None and data.classes != list(classes):
        raise DatasetError(f"{json_file}: has the classes {data.classes}, but data set '{name}' has {list(classes)}")
    _set_metadata(
        name,
        thing_classes=data.classes,
        thing_dataset_id_to_contiguous_id={category: i for i, category in enumerate(data.category_ids)},
        json_file=json_file,
        image_root=root,
    )
    return data.frames


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


def _refuse_imagenet_vid(name: str) -> list[dict]:
    raise DatasetError(
        f"data set '{name}' has class names only: ImageNet VID's own layout is not read yet. Convert it to "
        "COCO-VID JSON and give that file by path (--test-json) or register_coco_vid"
    )


def _set_metadata(name: str, **values: object) -> None:
    metadata = MetadataCatalog.get(name)
    for key, value in values.items():
        # Metadata refuses to change a value; data that moved or was rendered anew may do so.
        vars(metadata).pop(key, None)
        setattr(metadata, key, value)
