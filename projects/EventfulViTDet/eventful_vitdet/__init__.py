"""EventfulViTDet: video object detection that recomputes only what changed, for Detectron2."""

import os
import sys
from importlib import import_module
from pathlib import Path

__version__ = "0.1.0"

if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
    # PyTorch's threads wait busily for the next operation. If other processes want the cores, that ends in frames of a
    # second, so they wait for some 50 microseconds only (docs/performance.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")

_HOMES = {
    "EventfulPredictor": ".eventful_predictor",
    "EventfulViT": ".modeling",
    "PerGate": "eventful_vit",
    "Threshold": "eventful_vit",
    "TopFraction": "eventful_vit",
    "TopR": "eventful_vit",
    "add_eventful_vitdet_config": ".config",
    "count_operations": "eventful_vit",
}
"""Modules of the public names. They are imported when a name is first used: a command's --help needs no torch."""

__all__ = list(_HOMES)


def _append_embedded_detectron2() -> None:
    """Put the embedded part of Detectron2 at the end of the module search, where an installed one goes first."""
    package = Path(__file__).resolve().parent
    for folder in (package / "embedded", package.parent / "embedded"):
        if (folder / "detectron2").is_dir() and str(folder) not in sys.path:
            sys.path.append(str(folder))


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value  # the next time, it is there
    return value


def __dir__() -> list:
    return sorted([*globals(), *__all__])


_append_embedded_detectron2()
