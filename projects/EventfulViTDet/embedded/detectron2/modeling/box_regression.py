from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss

LOSS_TYPES = ("smooth_l1", "giou")
# No box grows by more than what turns 16 pixels into 1000: exp() of a wild prediction stays finite.
_SCALE_CLAMP = math.log(1000 / 16)


class Box2BoxTransform:
    """The coding of a target box relative to a source box.

    Deltas are the shift of the centre in units of the source's size (dx, dy) and the logarithm of the growth of
    the size (dw, dh), all times ``weights``. Boxes are XYXY.
    """

    def __init__(self, weights: Sequence[float], scale_clamp: float = _SCALE_CLAMP):
        self.weights = tuple(weights)
        self.scale_clamp = scale_clamp
        self._weights_on: dict[torch.device, torch.Tensor] = {}

    def get_deltas(self, src_boxes: torch.Tensor, target_boxes: torch.Tensor) -> torch.Tensor:
        """(N, 4) deltas between boxes (N, 4); ValueError if a source has no width or height."""
        src_center, src_size = _center_and_size(src_boxes)
        if not (src_size > 0).all():
            raise ValueError("cannot code boxes relative to source boxes without width or height")
        target_center, target_size = _center_and_size(target_boxes)
        shift = (target_center - src_center) / src_size
        growth = torch.log(target_size / src_size)
        return torch.cat((shift, growth), dim=1) * src_boxes.new_tensor(self.weights)

    def apply_deltas(self, deltas: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Boxes (N, 4 K) from K deltas each (N, 4 K) relative to boxes (N, 4); computes in float32."""
        coded = deltas.float().unflatten(1, (-1, 4))  # (N, K, 4)
        coded = coded / self._weights_tensor(coded.device)
        center, size = _center_and_size(boxes.float()[:, None])  # (N, 1, 2) each
        center = coded[..., :2] * size + center
        half_size = 0.5 * (coded[..., 2:].clamp(max=self.scale_clamp).exp() * size)
        return torch.cat((center - half_size, center + half_size), dim=-1).flatten(1)

    @torch.inference_mode(False)
    def _weights_tensor(self, device: torch.device) -> torch.Tensor:
        """Kept: a copy to a GPU would wait for it, and could not be recorded in a CUDA graph."""
        if device not in self._weights_on:
            self._weights_on[device] = torch.tensor(self.weights, dtype=torch.float32, device=device)
        return self._weights_on[device]


def _center_and_size(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    size = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * size, size


def check_loss_type(loss_type: str, key: str) -> None:
    """Raise ValueError, naming the key of the configuration, for a loss that `box_regression_loss` does not have."""
    if loss_type not in LOSS_TYPES:
        raise ValueError(f"{key} = {loss_type!r} is unknown: use one of {', '.join(map(repr, LOSS_TYPES))}")


def box_regression_loss(
    transform: Box2BoxTransform,
    src_boxes: torch.Tensor,
    pred_deltas: torch.Tensor,
    target_boxes: torch.Tensor,
    loss_type: str,
    smooth_l1_beta: float,
) -> torch.Tensor:
    """The sum of the losses of n foreground boxes; the three tensors are (n, 4).

    ``loss_type`` is "smooth_l1" between deltas (plain L1 if ``smooth_l1_beta`` is 0) or "giou" between boxes.
    """
    if loss_type == "smooth_l1":
        target_deltas = transform.get_deltas(src_boxes, target_boxes)
        return F.smooth_l1_loss(pred_deltas.float(), target_deltas, beta=smooth_l1_beta, reduction="sum")
    check_loss_type(loss_type, "loss_type")
    return generalized_box_iou_loss(transform.apply_deltas(pred_deltas, src_boxes), target_boxes, reduction="sum")
