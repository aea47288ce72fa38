"""From annotations to what models train on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.structures import Boxes, BoxMode, Instances


def annotations_to_instances(annos: Sequence[dict], image_size: tuple[int, int]) -> Instances:
    """Instances with ``gt_boxes`` (N, 4) float32 and ``gt_classes`` (N,) int64."""
    boxes = [BoxMode.convert(list(anno["bbox"]), anno["bbox_mode"], BoxMode.XYXY_ABS) for anno in annos]
    target = Instances(image_size)
    target.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    target.gt_classes = torch.tensor([int(anno["category_id"]) for anno in annos], dtype=torch.int64)
    return target
