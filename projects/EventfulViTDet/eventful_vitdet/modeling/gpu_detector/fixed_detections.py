"""The second stage with fixed sizes: as many detections as there may be, and how many of them count, on the device.

The choice is Detectron2's: scores above the threshold, suppression within classes, the best of what stays. It looks at
the best CANDIDATES pairs of region and class. Less good ones never change what becomes of better ones, so where enough
detections stay, or there were no more pairs, the result is exact. Where not, the frame is `incomplete`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.modeling.roi_heads import CascadeROIHeads, FastRCNNConvFCHead, FastRCNNOutputLayers, StandardROIHeads
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from ...errors import ConfigError
from .fixed_proposals import FixedProposals
from .image_sizes import ImageSizes
from .inference_copies import copy_for_inference
from .region_pooling import Pooling
from .suppression import Groups, order_of_kept, suppress

CANDIDATES = 2048


@dataclass(frozen=True)
class FixedDetections:
    """T detections of each image, best first, of which the first `count` are some."""

    boxes: Tensor
    """(B, T, 4)"""
    scores: Tensor
    """(B, T)"""
    classes: Tensor
    """(B, T)"""
    count: Tensor
    """(B,)"""
    incomplete: Tensor
    """(B,) bool: whether the candidates did not suffice."""
    placed: Tensor
    """(B, T, 4), boxes in pixels of the frames as they were before resizing."""
    vanishes: Tensor
    """(B,) bool: whether one of these is empty there."""
    region_boxes: Tensor
    """(B, P, K * 4) or (B, P, 4): what they were chosen from."""
    region_scores: Tensor
    """(B, P, K + 1); below 0 where there is no proposal."""


class SecondStage:
    """Detectron2's box heads, one or a cascade, for inference on a GPU."""

    def __init__(self, heads: nn.Module, dtype: torch.dtype | None) -> None:
        """Raises ConfigError for heads of another kind."""
        if type(heads) not in (StandardROIHeads, CascadeROIHeads):
            raise ConfigError(f"{type(heads).__name__} are no StandardROIHeads or CascadeROIHeads")
        is_cascade = type(heads) is CascadeROIHeads
        box_heads = list(heads.box_head) if is_cascade else [heads.box_head]
        self._predictors = list(heads.box_predictor) if is_cascade else [heads.box_predictor]
        for part, kind in [(head, FastRCNNConvFCHead) for head in box_heads] + [
            (predictor, FastRCNNOutputLayers) for predictor in self._predictors
        ]:
            if type(part) is not kind:
                raise ConfigError(f"{type(part).__name__} is no {kind.__name__}")
        self._pooling = Pooling.of(heads.box_pooler)
        self._heads = [copy_for_inference(head, dtype) for head in box_heads]
        self._in_features = list(heads.box_in_features)
        self._groups: dict[int, Groups] = {}

    def __call__(self, maps: dict[str, Tensor], proposals: FixedProposals, sizes: ImageSizes) -> FixedDetections:
        """The detections in maps (B, C, H, W) by name."""
        levels, boxes, scores = [maps[name] for name in self._in_features], proposals.boxes, []
        for stage, (head, predictor) in enumerate(zip(self._heads, self._predictors)):
            if stage:
                boxes = sizes.clip(boxes)
            hidden = head(self._pooling(levels, boxes))
            # Scores are told apart, and boxes found, in the type of the weights.
            logits, deltas = predictor(hidden.flatten(1).to(predictor.cls_score.weight.dtype))
            logits = logits.float()
            scores.append(logits.sigmoid() if predictor.use_sigmoid_ce else logits.softmax(dim=1))
            boxes = predictor.box2box_transform.apply_deltas(deltas, boxes.flatten(0, 1)).unflatten(0, boxes.shape[:2])
        mean = sum(scores) * (1.0 / len(scores)) if len(scores) > 1 else scores[0]
        return self._choose(boxes, mean.unflatten(0, boxes.shape[:2]), proposals.valid(), sizes)

    def settings(self) -> tuple:
        """Numbers that may be changed between frames."""
        last = self._predictors[-1]
        return last.test_score_thresh, last.test_nms_thresh, last.test_topk_per_image

    def _choose(self, boxes: Tensor, scores: Tensor, valid: Tensor, sizes: ImageSizes) -> FixedDetections:
        last = self._predictors[-1]
        classes = scores.shape[2] - 1
        valid = valid & boxes.isfinite().all(2) & scores.isfinite().all(2)
        pairs = scores[..., :-1].masked_fill(~valid[:, :, None], -1.0).flatten(1)
        ordered, places = pairs.sort(dim=1, descending=True, stable=True)
        some = min(CANDIDATES, pairs.shape[1])
        ordered, places = ordered[:, :some], places[:, :some]
        labels = places % classes
        per_class = boxes.unflatten(2, (-1, 4))
        one_each = per_class.shape[2] > 1
        chosen = (places if one_each else places // classes)[:, :, None].expand(-1, -1, 4)
        found = sizes.clip(per_class.flatten(1, 2).gather(1, chosen))
        above = (ordered > last.test_score_thresh) & (ordered >= 0)
        keep = suppress(found, above, self._one_group(some, boxes.device), last.test_nms_thresh, labels)
        most = some if last.test_topk_per_image < 0 else min(last.test_topk_per_image, some)
        order, count = order_of_kept(ordered, keep, most)
        more = ((pairs > last.test_score_thresh) & (pairs >= 0)).sum(1) > some
        boxes_found = found.gather(1, order[:, :, None].expand(-1, -1, 4))
        placed = sizes.place(boxes_found)
        empty = (placed[..., 2:] <= placed[..., :2]).any(2)
        return FixedDetections(
            boxes=boxes_found,
            scores=ordered.gather(1, order),
            classes=labels.gather(1, order),
            count=count,
            incomplete=more & (count < last.test_topk_per_image if last.test_topk_per_image >= 0 else more),
            placed=placed,
            vanishes=(empty & (torch.arange(most, device=empty.device) < count[:, None])).any(1),
            region_boxes=boxes,
            region_scores=scores.masked_fill(~valid[:, :, None], -1.0),
        )

    def _one_group(self, candidates: int, device: torch.device) -> Groups:
        """All candidates of an image. Kept, as a recording can neither make it nor outlive it."""
        if candidates not in self._groups:
            self._groups[candidates] = Groups([candidates], device)
        return self._groups[candidates]

    def instances(self, found: FixedDetections, sizes: Sequence[tuple[int, int]]) -> list[Instances]:
        """The detections of each image, of these sizes, in memory of their own. Waits for the device."""
        numbers = torch.stack([found.count, found.incomplete.long()]).tolist()
        return [
            self._choose_again(found, image, size) if incomplete else _instances(found, found.boxes, image, count, size)
            for image, (size, count, incomplete) in enumerate(zip(sizes, *numbers))
        ]

    def placed_instances(
        self, found: FixedDetections, sizes: Sequence[tuple[int, int]], output_sizes: Sequence[tuple[int, int]]
    ) -> list[Instances]:
        """The same in the images before resizing, as `detector_postprocess` gives them; with one wait only."""
        numbers = torch.stack([found.count, found.incomplete | found.vanishes]).tolist()
        return [
            detector_postprocess(self.instances(found, sizes)[image], *output)
            if unusual
            else _instances(found, found.placed, image, count, output)
            for image, (output, count, unusual) in enumerate(zip(output_sizes, *numbers))
        ]

    def _choose_again(self, found: FixedDetections, image: int, size: tuple[int, int]) -> Instances:
        """As Detectron2 chooses, from all pairs."""
        last = self._predictors[-1]
        limits = (last.test_score_thresh, last.test_nms_thresh, last.test_topk_per_image)
        scores = found.region_scores[image]
        known = scores[:, 0] >= 0
        return fast_rcnn_inference([found.region_boxes[image][known]], [scores[known]], [size], *limits)[0][0]


def _instances(found: FixedDetections, boxes: Tensor, image: int, count: int, size: tuple[int, int]) -> Instances:
    return Instances(
        size,
        pred_boxes=Boxes(boxes[image, :count].clone()),
        scores=found.scores[image, :count].clone(),
        pred_classes=found.classes[image, :count].clone(),
    )
