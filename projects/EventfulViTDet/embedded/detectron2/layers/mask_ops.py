from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from detectron2.structures import Boxes


def paste_masks_in_image(
    masks: torch.Tensor, boxes: Boxes | torch.Tensor, image_shape: tuple[int, int], threshold: float = 0.5
) -> torch.Tensor:
    """Masks of whole images from masks of boxes.

    Args:
        masks: (N, M, M), from 0 to 1.
        boxes: N boxes in pixels, which the masks fill.
        image_shape: height and width in pixels.
        threshold: a pixel belongs to the object from this value on. Below 0, values from 0 to 255 are wanted instead.

    Returns:
        (N, height, width) bool, or uint8 for a negative threshold.
    """
    corners = boxes if isinstance(boxes, torch.Tensor) else boxes.tensor
    height, width = image_shape
    pasted = masks.new_zeros((len(masks), height, width), dtype=torch.uint8 if threshold < 0 else torch.bool)
    for image, mask, box, region in zip(pasted, masks, corners, _regions(corners, height, width)):
        left, top, right, bottom = region
        if left >= right or top >= bottom:
            continue
        values = _sample(mask.float(), box, region)
        image[top:bottom, left:right] = (values * 255).to(torch.uint8) if threshold < 0 else values >= threshold
    return pasted


def _regions(boxes: torch.Tensor, height: int, width: int) -> list[list[int]]:
    """For every box, the pixels that it may reach: left, top, right and bottom, within the image."""
    # A pixel more on all sides: values fall to zero over half a mask cell beyond the box.
    low = (boxes[:, :2].floor() - 1).clamp(min=0)
    high = torch.minimum(boxes[:, 2:].ceil() + 1, boxes.new_tensor([width, height]))
    return torch.cat((low, high), dim=1).int().tolist()


def _sample(mask: torch.Tensor, box: torch.Tensor, region: list[int]) -> torch.Tensor:
    """Values of a mask (M, M) at the centres of a region's pixels, bilinear between those of its cells."""
    left, top, right, bottom = region
    x = _relative(left, right, box[0], box[2])
    y = _relative(top, bottom, box[1], box[3])
    grid = torch.stack((x.expand(len(y), -1), y[:, None].expand(-1, len(x))), dim=2)  # (height, width, 2)
    return F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0]


def _relative(start: int, end: int, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Centres of the pixels from start to end, -1 at one side of the box and 1 at the other."""
    centers = torch.arange(start, end, device=low.device, dtype=torch.float32) + 0.5
    return (centers - low) / (high - low) * 2 - 1
