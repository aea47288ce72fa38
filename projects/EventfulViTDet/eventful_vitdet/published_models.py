"""Recognising Detectron2's published ViTDet models by the names and shapes of their parameters."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

SIZES = {(768, 12): "b", (1024, 24): "l", (1280, 32): "h"}
"""By the channels of a token and the number of blocks."""
DATA = {80: "coco", 1203: "lvis"}
"""By the number of classes."""
HEADS = {
    "roi_heads.box_predictor.cls_score.weight": ("mask_rcnn", "Mask R-CNN"),
    "roi_heads.box_predictor.2.cls_score.weight": ("cascade_mask_rcnn", "Cascade Mask R-CNN"),
}
"""By the name of the last stage's classifier: in names of files, and as people say it."""


def describe_published(weights: Mapping[str, Tensor]) -> str:
    """Which published model has such parameters, and its configuration, as a sentence; "" where none has."""
    positions = weights.get("backbone.net.pos_embed")
    classifier = next((name for name in HEADS if name in weights), None)
    if positions is None or classifier is None or "roi_heads.mask_head.predictor.weight" not in weights:
        return ""
    blocks = {name.split(".")[3] for name in weights if name.startswith("backbone.net.blocks.")}
    size = SIZES.get((positions.shape[-1], len(blocks)))
    data = DATA.get(weights[classifier].shape[0] - 1)
    if size is None or data is None:
        return ""
    file, title = HEADS[classifier]
    config = f"configs/{data}/{file}_vitdet_{size}.yaml"
    return f"The file is of a {data.upper()} {title} with ViTDet-{size.upper()}: use {config}"
