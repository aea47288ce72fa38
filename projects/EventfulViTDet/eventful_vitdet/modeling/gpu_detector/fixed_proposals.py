"""A proposal network with fixed sizes: as many proposals as there may be, and how many of them count, on the device.

The choice is Detectron2's: the best anchors of each level, decoded and clipped; of these the finite ones that are not
empty; suppression within levels; the best of what stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.modeling.proposal_generator.rpn import RPN, StandardRPNHead
from torch import Tensor, nn

from ...errors import ConfigError
from .anchor_decoding import decode
from .anchor_outputs import AnchorOutputs
from .image_sizes import ImageSizes
from .inference_copies import copy_for_inference
from .ranking import best
from .suppression import Groups, suppress


@dataclass(frozen=True)
class FixedProposals:
    """P proposals of each image, best first, of which the first `count` count. The others are boxes of zeros."""

    boxes: Tensor
    """(B, P, 4)"""
    logits: Tensor
    """(B, P)"""
    count: Tensor
    """(B,) int32"""


@dataclass(frozen=True)
class Anchors:
    """The anchors of all levels for maps of some size."""

    boxes: Tensor
    """(R, 4)"""
    sizes: tuple[int, ...]
    """Anchors of each level."""
    best: int
    """How many of each level are looked at. Where a level has fewer, they are filled up with logits of -inf."""
    groups: Groups
    firsts: Tensor
    """(levels,): the first anchor of each level."""


class ProposalNetwork:
    """Detectron2's RPN for inference on a GPU."""

    def __init__(self, rpn: nn.Module, dtype: torch.dtype | None) -> None:
        """Raises ConfigError for a network of another kind."""
        if type(rpn) is not RPN or type(rpn.rpn_head) is not StandardRPNHead:
            raise ConfigError(f"{type(rpn).__name__} is no RPN with Detectron2's StandardRPNHead")
        head = rpn.rpn_head
        if head.anchor_deltas.out_channels != 4 * head.objectness_logits.out_channels:
            raise ConfigError("its anchors are rotated")
        self._rpn = rpn
        self._convolutions = copy_for_inference(head.conv, dtype)
        self._outputs = AnchorOutputs(
            copy_for_inference(head.objectness_logits, dtype), copy_for_inference(head.anchor_deltas, dtype)
        )

    def settings(self) -> tuple:
        """Numbers that may be changed between frames."""
        rpn, coding = self._rpn, self._rpn.box2box_transform
        limits = rpn.pre_nms_topk[False], rpn.post_nms_topk[False], rpn.nms_thresh, _least_side(rpn)
        return (*limits, *coding.weights, coding.scale_clamp)

    def anchors(self, maps: dict[str, Tensor]) -> Anchors:
        """The anchors for such maps. Computed once for a size, outside of a recording."""
        levels = self._rpn.anchor_generator([maps[name] for name in self._rpn.in_features])
        sizes = tuple(len(level) for level in levels)
        best = min(self._rpn.pre_nms_topk[False], max(sizes))
        boxes = torch.cat([level.tensor for level in levels])
        firsts = torch.tensor([sum(sizes[:level]) for level in range(len(sizes))], device=boxes.device)
        return Anchors(boxes, sizes, best, Groups([best] * len(sizes), boxes.device), firsts)

    def __call__(self, maps: dict[str, Tensor], anchors: Anchors, sizes: ImageSizes) -> FixedProposals:
        """The proposals in maps (B, C, H, W) by name."""
        rpn = self._rpn
        logits, deltas = self._predict([maps[name] for name in rpn.in_features], anchors)
        scores, places = logits.topk(anchors.best, dim=2, sorted=False)  # (B, levels, M / levels)
        coding = rpn.box2box_transform
        boxes, scores, allowed = decode(
            deltas, anchors.boxes, places, scores, anchors.firsts, sizes.limits, coding.weights, coding.scale_clamp,
            _least_side(rpn),
        )  # fmt: skip
        most = min(rpn.post_nms_topk[False], scores.shape[1])
        keep = suppress(boxes, allowed, anchors.groups, rpn.nms_thresh, most=most)
        found = best(scores, keep, boxes, most)
        return FixedProposals(found.boxes, found.scores, found.count)

    def _predict(self, maps: Sequence[Tensor], anchors: Anchors) -> tuple[Tensor, Tensor]:
        """Logits (B, levels, anchors of the largest level) and deltas (B, R, 4), float32."""
        streams, device = len(maps[0]), maps[0].device
        logits = torch.full((streams, len(maps), max(anchors.sizes)), -torch.inf, dtype=torch.float32, device=device)
        deltas = torch.empty(streams, len(anchors.boxes), 4, dtype=torch.float32, device=device)
        of_levels = zip(maps, anchors.sizes, deltas.split(anchors.sizes, dim=1))
        for level, (level_map, size, its_deltas) in enumerate(of_levels):
            self._outputs(self._convolutions(level_map), logits[:, level, :size], its_deltas)
        return logits, deltas


def _least_side(rpn: nn.Module) -> float:
    """Side in pixels that a proposal's must be above: an option that Detectron2 has, and its embedded part has not."""
    return getattr(rpn, "min_box_size", 0.0)
