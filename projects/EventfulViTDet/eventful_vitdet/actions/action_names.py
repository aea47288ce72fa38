"""Names of a VideoClassifier's classes: from lists, from the data sets of its configuration, or numbers."""

from __future__ import annotations

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..class_lists import read_class_list
from ..errors import ConfigError, DatasetError
from ..modeling.video_classifier import parse_heads
from .csv_rows import CsvRow, check_columns, read_csv
from .epic_kitchens import LABELS
from .kinetics import CLASSES_FILE

KEY = "MODEL.VIVIT.CLASS_NAMES"
EPIC_LIST = "EPIC_100_{}_classes.csv"
"""EPIC-Kitchens' list of a head's classes, with columns id and key, beside its CSV files."""

logger = logging.getLogger(__name__)


def action_names(cfg: CfgNode) -> dict[str, list[str]]:
    """The names of each head's classes.

    By MODEL.VIVIT.CLASS_NAMES; else of the first data set of DATASETS.TEST and TRAIN that is there; else, of 400
    classes called "label", Kinetics-400's. Where there are none, classes are numbered, and a warning says so.

    Raises:
        ConfigError: MODEL.VIVIT.CLASS_NAMES names no head or no list, or a list has another number of names.
        DatasetError: a data set's list of classes is damaged.
    """
    heads = parse_heads(cfg.MODEL.VIVIT.CLASSES)
    names = _listed_names(cfg.MODEL.VIVIT.CLASS_NAMES, heads)
    for head, classes in heads.items():
        if head in names:
            continue
        known = _data_set_names(cfg, head, classes)
        if known is None and (head, classes) == ("label", 400):
            known = _kinetics_names()
        if known is None:
            logger.warning("no data set is there to name the classes of %s, which are numbered; %s can", head, KEY)
            known = [f"{head} {index}" for index in range(classes)]
        names[head] = known
    return {head: names[head] for head in heads}


def _listed_names(lists: Sequence, heads: dict[str, int]) -> dict[str, list[str]]:
    names = {}
    for entry in lists:
        if not isinstance(entry, (list, tuple)) or len(entry) != 2 or entry[0] not in list(heads):
            raise ConfigError(
                f"{KEY} has {entry!r}; expected [HEAD, FILE], with a head of MODEL.VIVIT.CLASSES ({', '.join(heads)})"
            )
        head, path = entry
        names[head] = read_class_list(KEY, str(path))
        if len(names[head]) != heads[head]:
            raise ConfigError(f"{KEY}: {path} has {len(names[head])} names, but {head} has {heads[head]} classes")
    return names


def _data_set_names(cfg: CfgNode, head: str, classes: int) -> list[str] | None:
    """A head's names by the first data set that has some."""
    for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        place = MetadataCatalog.get(name).get("action_place") if name in DatasetCatalog.list() else None
        if place is None:
            continue
        try:
            path, root, _ = place()
        except DatasetError:  # it is not on this machine
            continue
        names = _kinetics_labels(path, root) if head == "label" else _epic_names(path, root, head, classes)
        if names is not None and len(names) == classes:
            return names
    return None


def _epic_names(path: str, root: str, head: str, classes: int) -> list[str] | None:
    """By EPIC-Kitchens' list of classes, else by the words that the clips of a class are told with most often."""
    file = os.path.join(root, EPIC_LIST.format(head))
    has_list = os.path.isfile(file)
    rows = read_csv(file if has_list else path)
    number, word = ("id", "key") if has_list else (LABELS.get(head, ""), head)
    if has_list:
        check_columns(rows, (number, word))
    elif not {number, word} <= set(rows[0].values):
        return None
    return _most_frequent(rows, number, word, head, classes)


def _most_frequent(rows: Sequence[CsvRow], number: str, word: str, head: str, classes: int) -> list[str]:
    told: dict[int, Counter[str]] = defaultdict(Counter)
    for row in rows:
        told[row.number(number, classes)][row.text(word)] += 1
    return [told[i].most_common(1)[0][0] if i in told else f"{head} {i}" for i in range(classes)]


def _kinetics_labels(path: str, root: str) -> list[str] | None:
    """All labels in alphabetical order, which is that of the classes."""
    file = os.path.join(root, CLASSES_FILE)
    if os.path.isfile(file):
        return sorted(set(read_class_list(CLASSES_FILE, file)))
    rows = read_csv(path)
    return sorted({row.text("label") for row in rows}) if "label" in rows[0].values else None


def _kinetics_names() -> list[str]:
    """Kinetics-400's, which torchvision has with its own models."""
    from torchvision.models.video import MViT_V2_S_Weights

    return list(MViT_V2_S_Weights.KINETICS400_V1.meta["categories"])
