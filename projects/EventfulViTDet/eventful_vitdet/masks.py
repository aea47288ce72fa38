"""Masks of detections: which of them a detector computes, and what they cover."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from detectron2.layers import paste_masks_in_image
from torch import Tensor, nn


@dataclass(frozen=True)
class MaskRequest:
    """Which detections of a frame get a mask; by default all."""

    min_score: float = 0.0
    """Those with at least this score, ..."""
    per_image: int = -1
    """... of these at most the best so many; below 0, any number."""

    def choose(self, scores: Tensor) -> Tensor:
        """(N,) bool for detections with scores (N,), the best first."""
        chosen = scores >= self.min_score
        if self.per_image >= 0:
            chosen[self.per_image :] = False
        return chosen


NO_MASKS = MaskRequest(per_image=0)
OUTLINE_GRID = 112
"""Rows and columns that a mask is enlarged to before its outline is taken."""


class RunLengths(NamedTuple):
    """A mask of an image as COCO's files have it, run-length encoded."""

    height: int
    width: int
    counts: bytes

    def as_coco(self) -> dict:
        """The form of COCO's JSON files."""
        return {"size": [self.height, self.width], "counts": self.counts.decode("ascii")}


def has_masks(model: nn.Module) -> bool:
    """Whether a detector can give masks."""
    return bool(getattr(getattr(model, "roi_heads", None), "mask_on", False))


@contextmanager
def masks_requested(model: nn.Module, request: MaskRequest | None) -> Iterator[None]:
    """Have a VideoRCNN compute these masks within the context, see `VideoRCNN.mask_request`."""
    before, model.mask_request = getattr(model, "mask_request", None), request
    try:
        yield
    finally:
        model.mask_request = before


def paste_mask(mask: np.ndarray, box: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels (height, width) of an image that an object covers, bool.

    Args:
        mask: (M, M) probabilities, which fill the box; NaN where it was not computed, which covers nothing.
        box: x0, y0, x1, y1 in pixels.
    """
    inside, corners = torch.from_numpy(mask[None]), torch.from_numpy(np.asarray(box, np.float32)[None])
    return paste_masks_in_image(inside, corners, (height, width))[0].numpy()


def outline_mask(mask: np.ndarray, box: np.ndarray) -> list[list[float]]:
    """Polygons around what an object covers and around holes in it (even-odd rule); x0, y0, x1, y1, ... in pixels.

    Args:
        mask: (M, M) probabilities, which fill the box; NaN where it was not computed, which gives no polygon.
        box: x0, y0, x1, y1 in pixels.
    """
    if np.isnan(mask).any():
        return []
    fine = cv2.resize(mask, (OUTLINE_GRID, OUTLINE_GRID), interpolation=cv2.INTER_LINEAR)
    contours, _ = cv2.findContours((fine >= 0.5).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outlines = (cv2.approxPolyDP(contour, 0.7, True)[:, 0] for contour in contours)
    scale = (box[2:] - box[:2]) / OUTLINE_GRID
    return [np.round(box[:2] + (points + 0.5) * scale, 1).ravel().tolist() for points in outlines if len(points) > 2]


def encode_mask(covered: np.ndarray) -> RunLengths:
    """Pixels (height, width), bool, as run lengths."""
    from pycocotools import mask as coco_mask  # a camera does without it

    encoded = coco_mask.encode(np.asfortranarray(covered.astype(np.uint8)))
    return RunLengths(*encoded["size"], encoded["counts"])
