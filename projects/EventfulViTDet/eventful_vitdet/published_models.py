"""Recognising detectors by the names and shapes of their parameters: Detectron2's published models, and those of other
configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Size

from .errors import ConfigError, shorten
from .known_models import KNOWN_MODELS, names_of_configs

SIZES = {(768, 12): "b", (1024, 24): "l", (1280, 32): "h"}
"""By the channels of a token and the number of blocks."""
DATA = {80: "coco", 1203: "lvis"}
"""By the number of classes."""
HEADS = {
    "roi_heads.box_predictor.cls_score.weight": ("mask_rcnn", "Mask R-CNN"),
    "roi_heads.box_predictor.2.cls_score.weight": ("cascade_mask_rcnn", "Cascade Mask R-CNN"),
}
"""By the name of the last stage's classifier: in names of files, and as people say it."""


class Sizes(NamedTuple):
    """What tells detectors apart."""

    channels: int
    blocks: int
    classes: int
    heads: str
    """One of HEADS' keys."""
    masks: bool


def sizes_of(shapes: Mapping[str, Size]) -> Sizes | None:
    """Of a detector with parameters of these names and shapes; None for anything else."""
    positions = shapes.get("backbone.net.pos_embed")
    classifier = next((name for name in HEADS if name in shapes), None)
    if positions is None or classifier is None:
        return None
    blocks = {name.split(".")[3] for name in shapes if name.startswith("backbone.net.blocks.")}
    masks = "roi_heads.mask_head.predictor.weight" in shapes
    return Sizes(positions[-1], len(blocks), shapes[classifier][0] - 1, classifier, masks)


def describe_origin(shapes: Mapping[str, Size], wanted: Mapping[str, Size]) -> str:
    """Which configuration a file's parameters are of, as a sentence; "" where none is known.

    Args:
        wanted: those of the model that they were meant for. Of the same sizes it would be no news.
    """
    found = sizes_of(shapes)
    if found is None or found == sizes_of(wanted):
        return ""
    return describe_published(found) or describe_configured(found)


def describe_published(found: Sizes) -> str:
    """Which published model has these sizes, and its configuration, as a sentence; "" where none has."""
    size = SIZES.get((found.channels, found.blocks))
    data = DATA.get(found.classes)
    if size is None or data is None or not found.masks:
        return ""
    file, title = HEADS[found.heads]
    config = f"configs/{data}/{file}_vitdet_{size}.yaml"
    return f"The file is of a {data.upper()} {title} with ViTDet-{size.upper()}: use {config}"


def describe_configured(found: Sizes) -> str:
    """Which configurations have these sizes, as a sentence, those of KNOWN_MODELS before others; "" where none has."""
    from .config_files import build_cfg  # which imports all of Detectron2's part

    fitting = []
    for name in names_of_configs():
        try:
            model = build_cfg(f"{name}.yaml").MODEL
        except ConfigError:  # of somebody's own file, which is not what the message is about
            continue
        heads = list(HEADS)[model.ROI_HEADS.NAME == "CascadeROIHeads"]
        sizes = Sizes(model.VIT.EMBED_DIM, model.VIT.DEPTH, model.ROI_HEADS.NUM_CLASSES, heads, model.MASK_ON)
        if model.META_ARCHITECTURE == "VideoRCNN" and sizes == found:
            fitting.append(name)
    known = [model.name for model in KNOWN_MODELS if model.name in fitting]
    names = [f"configs/{name}.yaml" for name in known or fitting]
    return f"The file has the sizes of {shorten(names, 3)}" if names else ""
