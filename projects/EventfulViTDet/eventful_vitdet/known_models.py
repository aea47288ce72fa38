"""The models that can be had, by the names of their configurations: what they find, and where their weights are.

Imports nothing that takes time: `eventful-vitdet models` lists them at once.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parents[2]
"""The repository that this package lies in. Of an installed package, a folder without any of its files."""
CONFIGS = PACKAGE / "configs" if (PACKAGE / "configs").is_dir() else CHECKOUT / "configs"
"""The configurations, installed with the package or in a checkout."""
DEFAULT_MODEL = "coco/mask_rcnn_vitdet_b"
DETECTRON2_ADDRESS = "https://dl.fbaipublicfiles.com/detectron2/"
"""What detectron2:// stands for."""


@dataclass(frozen=True)
class KnownModel:
    """A detector with weights that can be had."""

    name: str
    """Of its configuration below configs/, without .yaml."""
    finds: str
    """Its classes, in a few words."""
    megabytes: int
    """Size of its weights."""
    box_ap: float | None = None
    """On the data that it is published for; None where that is said elsewhere (docs/results.md)."""
    mask_ap: float | None = None
    """As `box_ap`; None for models without masks, too."""
    file: str = ""
    """Its weights in a checkout of the repository; "" for those that the configuration's MODEL.WEIGHTS fetches."""

    def local_file(self) -> Path | None:
        """Where its weights are on this machine, or have to be put; None where only a checkout has them."""
        if self.file:
            path = CHECKOUT / self.file
            return path if path.is_file() else None
        return place_of(self.address())

    def address(self) -> str:
        """Where its weights are fetched from; "" for those of the repository."""
        import yaml  # takes a moment, which names do not need

        if self.file:
            return ""
        return yaml.safe_load((CONFIGS / f"{self.name}.yaml").read_text(encoding="utf-8"))["MODEL"]["WEIGHTS"]


_COCO, _LVIS = "COCO's 80 classes, with masks", "LVIS' 1203 classes, with masks"

KNOWN_MODELS = (
    KnownModel("coco/mask_rcnn_vitdet_b", _COCO, 444, 51.6, 45.9),
    KnownModel("coco/mask_rcnn_vitdet_l", _COCO, 1323, 55.5, 49.2),
    KnownModel("coco/mask_rcnn_vitdet_h", _COCO, 2645, 56.7, 50.2),
    KnownModel("coco/cascade_mask_rcnn_vitdet_b", _COCO, 565, 54.0, 46.7),
    KnownModel("coco/cascade_mask_rcnn_vitdet_l", _COCO, 1444, 57.6, 50.0),
    KnownModel("coco/cascade_mask_rcnn_vitdet_h", _COCO, 2766, 58.7, 51.0),
    KnownModel("lvis/mask_rcnn_vitdet_b", _LVIS, 468, 40.2, 38.2),
    KnownModel("lvis/mask_rcnn_vitdet_l", _LVIS, 1347, 46.1, 43.6),
    KnownModel("lvis/mask_rcnn_vitdet_h", _LVIS, 2669, 49.1, 46.0),
    KnownModel("lvis/cascade_mask_rcnn_vitdet_b", _LVIS, 580, 43.0, 38.9),
    KnownModel("lvis/cascade_mask_rcnn_vitdet_l", _LVIS, 1459, 49.2, 44.5),
    KnownModel("lvis/cascade_mask_rcnn_vitdet_h", _LVIS, 2781, 51.5, 46.6),
    KnownModel(
        "airborne_vid/vitdet_small",
        "airplanes, birds, drones and helicopters in the sky",
        10,
        file="weights/airborne_vitdet_small.safetensors",
    ),
    KnownModel(
        "airborne_ir/vitdet_small",
        "the same in infrared",
        10,
        file="weights/airborne_ir_vitdet_small.safetensors",
    ),
    KnownModel("demo/vitdet_tiny", "the demo's rendered shapes", 5, file="weights/demo_vitdet_tiny.safetensors"),
)


def names_of_configs() -> list[str]:
    """Names of all configurations, without .yaml; files that others are based on are left out."""
    files = (path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.yaml"))
    return sorted(path.with_suffix("").as_posix() for path in files if len(path.parts) > 1)


def weights_settings(model: str, weights: str | os.PathLike | None = None) -> list[str]:
    """KEY VALUE pairs for the weights of a model: those that are given, else, of a model of KNOWN_MODELS that is named
    without .yaml, its file in a checkout; without a checkout, that file in the current folder. None where its
    configuration says it all."""
    if weights is not None:
        return ["MODEL.WEIGHTS", os.fspath(weights)]
    for known in KNOWN_MODELS:
        if known.name == model and known.file:
            return ["MODEL.WEIGHTS", str(known.local_file() or known.file)]
    return []


def place_of(address: str) -> Path | None:
    """Where the file of an address is kept once it was fetched (by iopath, below FVCORE_CACHE), or may be put by hand.

    None where that cannot be told: for paths, and for addresses with a query.
    """
    if address.startswith("detectron2://"):
        address = DETECTRON2_ADDRESS + address.removeprefix("detectron2://")
    try:
        parts = urlsplit(address)
    except ValueError:  # as of "http://[::1"
        return None
    if parts.scheme not in ("http", "https") or parts.query or parts.fragment or not parts.path.strip("/"):
        return None
    folder = os.path.expanduser(os.environ.get("FVCORE_CACHE", "~/.torch/iopath_cache"))
    return Path(folder, *parts.path.lstrip("/").split("/"))
