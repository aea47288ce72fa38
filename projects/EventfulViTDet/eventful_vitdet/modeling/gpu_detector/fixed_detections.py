"""The second stage with fixed sizes: as many detections as there may be, and how many of them count, on the device.

The choice is Detectron2's: scores above the threshold, suppression within classes, the best of what stays. It looks at
the best CANDIDATES pairs of region and class. Less good ones never change what becomes of better ones, so where enough
detections stay, or there were no more pairs, the result is exact. Where not, Detectron2's code chooses again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.modeling.roi_heads import CascadeROIHeads, FastRCNNConvFCHead, FastRCNNOutputLayers, StandardROIHeads
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from ...errors import ConfigError
from .fixed_proposals import FixedProposals
from .image_sizes import ImageSizes
from .inference_copies import copy_for_inference, flatten_rows
from .ranking import Best, best
from .region_decisions import decide
from .region_pooling import Pooling
from .suppression import Groups, suppress

CANDIDATES = 2048
"""Pairs of region and class of an image. Suppression compares all of them with each other."""


@dataclass(frozen=True)
class FixedDetections:
    """What was found in the images of a frame."""

    best: Best
    """T detections of each image, best first, of which some count."""
    room: int
    """How many pairs of region and class may be looked at."""
    region_boxes: Tensor
    """(B, P, K * 4) or (B, P, 4): what they were chosen from."""
    region_scores: Tensor
    """(B, P, K + 1); below 0 where there is no proposal."""


class _Outputs:
    """The last layers of a box head as one product, in the type of their weights: a short one would make scores tie."""

    @torch.inference_mode(False)
    @torch.no_grad()
    def __init__(self, predictor: nn.Module) -> None:
        layers = predictor.cls_score, predictor.bbox_pred
        self._weight = torch.cat([layer.weight for layer in layers])
        self._bias = torch.cat([layer.bias for layer in layers])
        self._lengths = [len(layer.weight) for layer in layers]

    def __call__(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (R, K + 1) in float32, and deltas (R, K * 4)."""
        both = F.linear(hidden.flatten(1).to(self._weight.dtype), self._weight, self._bias)
        logits, deltas = both.split(self._lengths, dim=1)
        return logits.float(), deltas


class SecondStage:
    """Detectron2's box heads, one or a cascade, for inference on a GPU."""

    def __init__(self, heads: nn.Module, dtype: torch.dtype | None) -> None:
        """Raises ConfigError for heads of another kind."""
        if type(heads) not in (StandardROIHeads, CascadeROIHeads):
            raise ConfigError(f"{type(heads).__name__} are no StandardROIHeads or CascadeROIHeads")
        is_cascade = type(heads) is CascadeROIHeads
        box_heads = list(heads.box_head) if is_cascade else [heads.box_head]
        self._predictors = list(heads.box_predictor) if is_cascade else [heads.box_predictor]
        codings = [getattr(predictor, "box2box_transform", None) for predictor in self._predictors]
        outputs = [getattr(part, name, None) for part in self._predictors for name in ("cls_score", "bbox_pred")]
        kinds = (
            (FastRCNNConvFCHead, box_heads),
            (FastRCNNOutputLayers, self._predictors),
            (nn.Linear, outputs),
            (Box2BoxTransform, codings),
        )
        for kind, parts in kinds:
            for part in parts:
                if type(part) is not kind:
                    raise ConfigError(f"{type(part).__name__} is no {kind.__name__}")
        self._outputs = [_Outputs(predictor) for predictor in self._predictors]
        self._pooling = Pooling.of(heads.box_pooler)
        self._heads = [copy_for_inference(head, dtype) for head in box_heads]
        for head in self._heads:
            flatten_rows(head, self._pooling.size)
        self._in_features = list(heads.box_in_features)
        self._groups: dict[int, Groups] = {}
        self._numbers: Tensor | None = None

    def __call__(self, maps: dict[str, Tensor], proposals: FixedProposals, sizes: ImageSizes) -> FixedDetections:
        """The detections in maps (B, C, H, W) by name."""
        levels, boxes, scores = [maps[name] for name in self._in_features], proposals.boxes, []
        for stage, (head, predictor, outputs) in enumerate(zip(self._heads, self._predictors, self._outputs)):
            if stage:
                boxes = sizes.clip(boxes)
            hidden = head(self._pooling(levels, boxes))
            logits, deltas = outputs(hidden)
            scores.append(logits.sigmoid() if predictor.use_sigmoid_ce else logits.softmax(dim=1))
            if stage + 1 < len(self._heads):
                coding = predictor.box2box_transform
                boxes = coding.apply_deltas(deltas, boxes.flatten(0, 1)).unflatten(0, boxes.shape[:2])
        mean = sum(scores) * (1.0 / len(scores)) if len(scores) > 1 else scores[0]
        return self._choose(mean, deltas, boxes, proposals.count, sizes)

    def settings(self) -> tuple:
        """Numbers that may be changed between frames."""
        last = self._predictors[-1]
        codings = [predictor.box2box_transform for predictor in self._predictors]
        return (
            last.test_score_thresh,
            last.test_nms_thresh,
            last.test_topk_per_image,
            *(predictor.use_sigmoid_ce for predictor in self._predictors),
            *(number for coding in codings for number in (*coding.weights, coding.scale_clamp)),
        )

    def _choose(
        self, scores: Tensor, deltas: Tensor, proposals: Tensor, count: Tensor, sizes: ImageSizes
    ) -> FixedDetections:
        last, classes = self._predictors[-1], scores.shape[1] - 1
        coding = last.box2box_transform
        boxes, known_scores, pairs, wanted = decide(
            scores, deltas, proposals, count, last.test_score_thresh, coding.weights, coding.scale_clamp
        )
        some = min(CANDIDATES, pairs.shape[1])
        per_class = boxes.unflatten(2, (-1, 4)).flatten(1, 2)
        found = best(pairs, wanted, per_class, some, classes=classes, clip=sizes)
        most = some if last.test_topk_per_image < 0 else min(last.test_topk_per_image, some)
        group = self._one_group(some, boxes.device)
        keep = suppress(found.boxes, None, group, last.test_nms_thresh, found.labels, used=found.count, most=most)
        kept = best(found.scores, keep, found.boxes, most, labels=found.labels, place=sizes)
        kept.numbers[1].copy_(found.numbers[1])  # read together
        return FixedDetections(kept, some, boxes, known_scores)

    def _one_group(self, candidates: int, device: torch.device) -> Groups:
        """All candidates of an image. Kept, as a recording can neither make it nor outlive it."""
        if candidates not in self._groups:
            self._groups[candidates] = Groups([candidates], device)
        return self._groups[candidates]

    def instances(
        self, found: FixedDetections, sizes: Sequence[tuple[int, int]], output_sizes: Sequence[tuple[int, int]] | None
    ) -> list[Instances]:
        """The detections of each image, in memory of their own. Waits for the device, and asks it for nothing after.

        Args:
            sizes: height and width of the images in pixels.
            output_sizes: those before resizing. With them, boxes are as `detector_postprocess` places them.
        """
        images, most, _ = found.best.boxes.shape
        own = Best.within(found.best.memory.clone(), images, most)
        boxes = own.boxes if output_sizes is None else own.placed
        result = []
        for image, (count, pairs, has_empty) in enumerate(zip(*self._read(found.best.numbers))):
            if pairs > found.room and not 0 <= self._predictors[-1].test_topk_per_image <= count:
                chosen = self._choose_again(found, image, sizes[image])
            elif has_empty and output_sizes is not None:
                chosen = _instances(own, own.boxes, image, count, sizes[image])
            else:
                result.append(_instances(own, boxes, image, count, (output_sizes or sizes)[image]))
                continue
            result.append(chosen if output_sizes is None else detector_postprocess(chosen, *output_sizes[image]))
        return result

    @torch.inference_mode(False)
    @torch.no_grad()
    def _read(self, numbers: Tensor) -> list[list[int]]:
        """A tensor's values, through pinned memory that is kept: one wait, and nothing to allocate."""
        if not numbers.is_cuda:
            return numbers.tolist()
        if self._numbers is None or self._numbers.shape != numbers.shape:
            self._numbers = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
        self._numbers.copy_(numbers, non_blocking=True)
        torch.cuda.current_stream(numbers.device).synchronize()
        return self._numbers.tolist()

    def _choose_again(self, found: FixedDetections, image: int, size: tuple[int, int]) -> Instances:
        """As Detectron2 chooses, from all pairs."""
        last = self._predictors[-1]
        limits = (last.test_score_thresh, last.test_nms_thresh, last.test_topk_per_image)
        scores = found.region_scores[image]
        known = scores[:, 0] >= 0
        return fast_rcnn_inference([found.region_boxes[image][known]], [scores[known]], [size], *limits)[0][0]


def _instances(found: Best, boxes: Tensor, image: int, count: int, size: tuple[int, int]) -> Instances:
    return Instances(
        size,
        pred_boxes=Boxes(boxes[image, :count]),
        scores=found.scores[image, :count],
        pred_classes=found.labels[image, :count],
    )
