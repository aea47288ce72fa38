"""Masks in annotation files: COCO's polygons and run lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Union

from ..errors import DatasetError
from .annotation_file import is_finite, quote, whole_number

Segmentation = Union[list, dict]
"""Polygons, each x0, y0, x1, y1, ... in pixels; or {"size": [height, width], "counts": run lengths}."""


def read_segmentation(where: str, value: object, height: int, width: int) -> Segmentation | None:
    """An annotation's `segmentation`; None where it has none, or an empty one, as files of boxes do.

    Raises DatasetError, naming the annotation, for what is no mask of an image of that size.
    """
    if value is None or value in ([], {}):
        return None
    if isinstance(value, list):
        return _read_polygons(where, value)
    if isinstance(value, Mapping):
        return _read_run_lengths(where, value, height, width)
    raise DatasetError(f"{where} has segmentation {quote(value)}; expected polygons or run lengths")


def _read_polygons(where: str, polygons: list) -> list:
    for polygon in polygons:
        if not (isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0):
            raise DatasetError(f"{where} has the polygon {quote(polygon)}; expected x and y of three points or more")
        if not all(map(is_finite, polygon)):
            raise DatasetError(f"{where} has a polygon with coordinates that are no numbers of pixels")
    return polygons


def _read_run_lengths(where: str, value: Mapping, height: int, width: int) -> dict:
    size, counts = value.get("size"), value.get("counts")
    if size != [height, width]:
        raise DatasetError(f"{where} has a mask of size {quote(size)}, but its image is [{height}, {width}]")
    runs = decode_counts(counts) if isinstance(counts, str) else counts
    numbers = [whole_number(run) for run in runs] if isinstance(runs, list) else [None]
    if None in numbers or min(numbers, default=0) < 0 or sum(numbers) != height * width:
        raise DatasetError(f"{where} has run lengths that do not add up to its {height} x {width} pixels")
    return {"size": [height, width], "counts": counts}


def as_run_lengths(mask: Segmentation, height: int, width: int) -> dict:
    """A mask as pycocotools' functions take it: compressed run lengths."""
    from pycocotools import mask as coco_mask

    if isinstance(mask, list):
        return coco_mask.merge(coco_mask.frPyObjects(mask, height, width))
    return coco_mask.frPyObjects(mask, height, width) if isinstance(mask["counts"], list) else mask


def decode_counts(text: str) -> list[int] | None:
    """The run lengths in COCO's compressed text: five bits a letter, differences from the run two before.

    None for other text, which pycocotools would read without a check.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        digit = ord(letter) - 48
        if not 0 <= digit < 64:
            return None
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return None if shift else runs


def has_masks(frames: Sequence[Mapping]) -> bool:
    """Whether every annotation that is no crowd has a mask, and there is one."""
    objects = [a for frame in frames for a in frame["annotations"] if not a.get("iscrowd", 0)]
    return bool(objects) and all("segmentation" in annotation for annotation in objects)
