"""EventfulViTDet: video object detection that recomputes only what changed, for Detectron2."""

import importlib
import sys
import warnings
from pathlib import Path

__version__ = "0.1.0"

_HOMES = {
    "EventfulViT": ".modeling",
    "PerGate": "eventful_vit",
    "Threshold": "eventful_vit",
    "TopFraction": "eventful_vit",
    "TopR": "eventful_vit",
    "add_eventful_vitdet_config": ".config",
    "count_operations": "eventful_vit",
}
_REGISTERING = ("data", "modeling")

__all__ = [
    "EventfulViT",
    "PerGate",
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
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)  # fvcore uses it
        parts = {part: importlib.import_module(f".{part}", __name__) for part in _REGISTERING}
        return parts[name] if name in parts else getattr(importlib.import_module(_HOMES[name], __name__), name)
