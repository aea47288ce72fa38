"""EventfulViTDet: video object detection that recomputes only what changed, for Detectron2."""

import math
import os
import sys
from importlib import import_module
from pathlib import Path

from .control_groups import cpu_limit

__version__ = "0.1.0"


def _prepare_threads() -> None:
    """Say how PyTorch's threads are to behave, as long as it has not been imported (docs/performance.md)."""
    if "torch" in sys.modules:
        return
    if "OMP_WAIT_POLICY" not in os.environ:
        # They wait busily for the next operation. If other processes want the cores, that ends in frames of a second,
        # so they wait for some 50 microseconds only.
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    limit = cpu_limit()
    # More threads than a container may use would be stopped all the time. By itself PyTorch takes one for each of the
    # machine's cores, which may be half of what the system counts.
    if limit is not None and math.ceil(limit) <= (os.cpu_count() or 1) / 2:
        os.environ.setdefault("OMP_NUM_THREADS", str(math.ceil(limit)))


_prepare_threads()

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
