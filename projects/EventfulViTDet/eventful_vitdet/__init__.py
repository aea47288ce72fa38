"""EventfulViTDet: video object detection that recomputes only what changed, for Detectron2."""

import sys
import warnings
from pathlib import Path

__version__ = "0.1.0"


def _append_embedded_detectron2() -> None:
    """Put the embedded part of Detectron2 at the end of the module search, where an installed one goes first."""
    package = Path(__file__).resolve().parent
    for folder in (package / "embedded", package.parent / "embedded"):
        if (folder / "detectron2").is_dir() and str(folder) not in sys.path:
            sys.path.append(str(folder))


_append_embedded_detectron2()

from eventful_vit import PerGate, Threshold, TopFraction, TopR, count_operations  # noqa: E402

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)  # fvcore uses it
    from . import actions, data, modeling  # noqa: F401  (registers data sets and models in Detectron2)
from .config import add_eventful_vitdet_config  # noqa: E402
from .modeling import EventfulViT  # noqa: E402

__all__ = [
    "EventfulViT",
    "PerGate",
    "Threshold",
    "TopFraction",
    "TopR",
    "add_eventful_vitdet_config",
    "count_operations",
]
