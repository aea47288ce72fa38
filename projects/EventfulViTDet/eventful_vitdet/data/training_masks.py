"""Masks to train on: annotated ones, moved with the image that augmentations change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

import numpy as np
from detectron2.structures import BitMasks, PolygonMasks, polygons_to_bitmask
from fvcore.transforms.transform import TransformList

from ..errors import DatasetError
from .segmentations import Segmentation, as_run_lengths, has_masks

Masks = Union[BitMasks, PolygonMasks]


def check_masks(names: Sequence[str], sets: Sequence[Sequence[dict]]) -> None:
    """Raise DatasetError unless every object of every data set has a mask, for a model that is to learn them."""
    for name, frames in zip(names, sets):
        if not has_masks(frames):
            raise DatasetError(
                f"data set '{name}' has objects without a mask ('segmentation'), but MODEL.MASK_ON is True: train on "
                "masks for all objects, or set MODEL.MASK_ON to False"
            )


def transform_masks(segmentations: Sequence[Segmentation], transforms: TransformList, frame: dict) -> Masks:
    """Masks in an augmented image, polygons where all are.

    Args:
        segmentations: as annotated in the frame, which they have the height and width of.
        transforms: what was applied to the image.
    """
    if all(isinstance(segmentation, list) for segmentation in segmentations):
        return PolygonMasks([_move(polygons, transforms) for polygons in segmentations])
    size = frame["height"], frame["width"]
    return BitMasks(np.stack([transforms.apply_segmentation(rasterize(mask, *size)) for mask in segmentations]))


def _move(polygons: list, transforms: TransformList) -> list[np.ndarray]:
    points = [np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in polygons]
    return [moved.reshape(-1) for moved in transforms.apply_polygons(points)]


def rasterize(segmentation: Segmentation, height: int, width: int) -> np.ndarray:
    """The pixels (height, width) that an annotated mask covers, uint8."""
    if isinstance(segmentation, list):
        return polygons_to_bitmask(segmentation, height, width).astype(np.uint8)
    from pycocotools import mask as coco_mask  # training on boxes does without it

    return coco_mask.decode(as_run_lengths(segmentation, height, width))
