"""Names of the classes of known data sets, a text file each, and reading them: MODEL.CLASS_NAMES."""

from __future__ import annotations

from pathlib import Path

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
    path = FOLDER / f"{name}.txt" if name in known_lists() else Path(name)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"MODEL.CLASS_NAMES is {name!r}: name {' or '.join(known_lists())}, or a text file with a class in every "
            f"line ({getattr(error, 'strerror', None) or 'it is no text'})"
        ) from error
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if len(names) != number:
        raise ConfigError(
            f"MODEL.CLASS_NAMES: {name} has {len(names)} names, but MODEL.ROI_HEADS.NUM_CLASSES is {number}"
        )
    return names
