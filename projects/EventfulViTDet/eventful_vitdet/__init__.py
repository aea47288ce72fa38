"""EventfulViTDet: video object detection that recomputes only what changed, for Detectron2."""

import importlib
import sys
from pathlib import Path

__version__ = "0.1.0"

_HOMES = {
    "EventfulViT": "eventful",
    "Threshold": "eventful",
    "TopFraction": "eventful",
    "TopR": "eventful",
    "add_eventful_vitdet_config": "config",
    "count_operations": "eventful",
}
_REGISTERING = ("data", "modeling")

__all__ = [
    "EventfulViT",
    "Threshold",
    "TopFraction",
    "TopR",
    "add_eventful_vitdet_config",
    "count_operations",
]


def _append_embedded_detectron2() -> None:
    """Put the embedded part of Detectron2 at the end of the module search, where an installed one goes first."""
    package = Path(__file__).resolve().parent
    for folder in (package / "embedded", package.parent / "embedded"):
        if (folder / "detectron2").is_dir() and str(folder) not in sys.path:
            sys.path.append(str(folder))


_append_embedded_detectron2()


def __getattr__(name: str) -> object:
    """Import what a public name needs when it is first used: a command has to listen before PyTorch is there.

    With it, data sets, the backbone and the detector are registered in Detectron2.
    """
    if name not in _HOMES and name not in _REGISTERING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for part in _REGISTERING:
        importlib.import_module(f".{part}", __name__)
    module = importlib.import_module(f".{_HOMES.get(name, name)}", __name__)
    return module if name in _REGISTERING else getattr(module, name)
