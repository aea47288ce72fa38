"""Names of the classes of known data sets, a text file each, and reading them: MODEL.CLASS_NAMES."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode

from ..errors import ConfigError

FOLDER = Path(__file__).parent


def known_lists() -> list[str]:
    """The names that MODEL.CLASS_NAMES may have instead of a file's."""
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def model_class_names(cfg: CfgNode) -> list[str] | None:
    """The names of the model's classes, by MODEL.CLASS_NAMES; None where that is empty.

    Raises:
        ConfigError: it names no file, or one with another number of names than MODEL.ROI_HEADS.NUM_CLASSES.
    """
    name, number = cfg.MODEL.CLASS_NAMES, cfg.MODEL.ROI_HEADS.NUM_CLASSES
    if not name:
        return None
    names = read_class_list("MODEL.CLASS_NAMES", name)
    if len(names) != number:
        raise ConfigError(
            f"MODEL.CLASS_NAMES: {name} has {len(names)} names, but MODEL.ROI_HEADS.NUM_CLASSES is {number}"
        )
    return names


def read_class_list(key: str, name: str) -> list[str]:
    """The lines of a known list, or of a text file. Raises ConfigError, naming the key, if it cannot be read."""
    path = FOLDER / f"{name}.txt" if name in known_lists() else Path(name)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{key} is {name!r}: give one of {', '.join(known_lists())}, or a text file with one class per "
            f"line ({getattr(error, 'strerror', None) or 'it is no text'})"
        ) from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def find_classes(names: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """Which of a model's classes are wanted, by their names: (C,) bool.

    Raises:
        ConfigError: the model has no class of that name; with names that look like it.
    """
    chosen = np.zeros(len(names), bool)
    lower = [name.lower() for name in names]
    for word in wanted:
        found = [index for index, name in enumerate(lower) if name == word.strip().lower()]
        if not found:
            near = difflib.get_close_matches(word.lower(), lower, 3)
            if near:
                hint = f"did you mean {' or '.join(repr(names[lower.index(name)]) for name in near)}?"
            else:
                hint = f"it has {', '.join(map(repr, names[:10]))}{', ...' if len(names) > 10 else ''}"
            raise ConfigError(f"the model has no class {word!r}; {hint}")
        chosen[found] = True
    return chosen
