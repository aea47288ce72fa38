from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances, pairwise_iou
from detectron2.utils.events import get_event_storage
from torch import nn

from ..box_regression import Box2BoxTransform
from ..matcher import Matcher
from .box_head import FastRCNNConvFCHead
from .fast_rcnn import FastRCNNOutputLayers, Predictions, fast_rcnn_inference
from .roi_heads import ROI_HEADS_REGISTRY, StandardROIHeads, box_pooling, label_boxes


@ROI_HEADS_REGISTRY.register()
class CascadeROIHeads(StandardROIHeads):
    """Several box heads, each on the boxes that the one before has refined. Scores are their mean."""

    @configurable
    def __init__(
        self,
        *,
        box_heads: Sequence[nn.Module],
        box_predictors: Sequence[nn.Module],
        proposal_matchers: Sequence[Matcher],
        **kwargs: Any,
    ):
        """A head, a predictor and a matcher for each stage; the rest as in StandardROIHeads."""
        numbers = [len(box_heads), len(box_predictors), len(proposal_matchers)]
        if len(set(numbers)) != 1:
            raise ValueError(f"a cascade needs as many heads as predictors and matchers, got {numbers}")
        super().__init__(
            box_head=nn.ModuleList(box_heads),
            box_predictor=nn.ModuleList(box_predictors),
            proposal_matcher=proposal_matchers[0],
            **kwargs,
        )
        self.num_cascade_stages = numbers[0]
        self.proposal_matchers = list(proposal_matchers)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Raises ValueError for settings that are none of a cascade."""
        arguments = super().from_config(cfg, input_shape)
        return {name: value for name, value in arguments.items() if name != "proposal_matcher"}

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        cascade, ious = cfg.MODEL.ROI_BOX_CASCADE_HEAD, cfg.MODEL.ROI_BOX_CASCADE_HEAD.IOUS
        _check_cascade(cfg)
        pooling, shape = box_pooling(cfg, input_shape)
        heads = [FastRCNNConvFCHead(cfg, shape) for _ in ious]
        return {
            **pooling,
            "box_heads": heads,
            "box_predictors": [
                FastRCNNOutputLayers(cfg, head.output_shape, box2box_transform=Box2BoxTransform(weights=weights))
                for head, weights in zip(heads, cascade.BBOX_REG_WEIGHTS)
            ],
            "proposal_matchers": [Matcher([iou], [0, 1]) for iou in ious],
        }

    def _forward_box(
        self,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> list[Instances] | dict[str, torch.Tensor]:
        maps = [features[name] for name in self.box_in_features]
        sizes = [image.image_size for image in proposals]
        stages: list[tuple[Predictions, list[Instances]]] = []
        for stage in range(self.num_cascade_stages):
            if stage:
                boxes = self.box_predictor[stage - 1].predict_boxes(*stages[-1])
                proposals = self._as_proposals(boxes, sizes)
                if self.training:
                    self._label(proposals, targets, stage)
            stages.append((self._run_stage(maps, proposals, stage), proposals))
        if self.training:
            return self._losses(stages)
        scores_of_stages = [predictor.predict_probs(*stage) for predictor, stage in zip(self.box_predictor, stages)]
        scores = [sum(of_image) * (1.0 / self.num_cascade_stages) for of_image in zip(*scores_of_stages)]
        last = self.box_predictor[-1]
        limits = (last.test_score_thresh, last.test_nms_thresh, last.test_topk_per_image)
        return fast_rcnn_inference(last.predict_boxes(*stages[-1]), scores, sizes, *limits)[0]

    def _run_stage(self, maps: list[torch.Tensor], proposals: list[Instances], stage: int) -> Predictions:
        regions = self.box_pooler(maps, [image.proposal_boxes for image in proposals])
        if regions.requires_grad:
            # Losses are added up. Each head learns from its own; what lies below, from their mean.
            regions.register_hook(lambda gradient: gradient * (1.0 / self.num_cascade_stages))
        return self.box_predictor[stage](self.box_head[stage](regions))

    def _losses(self, stages: list[tuple[Predictions, list[Instances]]]) -> dict[str, torch.Tensor]:
        losses = {}
        for number, (predictor, stage) in enumerate(zip(self.box_predictor, stages)):
            with get_event_storage().name_scope(f"stage{number}"):
                of_stage = predictor.losses(*stage)
            losses.update({f"{name}_stage{number}": loss for name, loss in of_stage.items()})
        return losses

    def _as_proposals(self, boxes: Sequence[torch.Tensor], sizes: list[tuple[int, int]]) -> list[Instances]:
        """What a stage has predicted, as input of the next."""
        proposals = []
        for of_image, size in zip(boxes, sizes):
            clipped = Boxes(of_image.detach())
            clipped.clip(size)
            # In inference every box stays, so that the scores of all stages belong to the same ones.
            proposals.append(Instances(size, proposal_boxes=clipped[clipped.nonempty()] if self.training else clipped))
        return proposals

    @torch.no_grad()
    def _label(self, proposals: list[Instances], targets: list[Instances], stage: int) -> None:
        """Give proposals ``gt_classes`` and ``gt_boxes`` by the stage's own matcher, in place."""
        foreground, background = [], []
        for image, target in zip(proposals, targets):
            iou = pairwise_iou(target.gt_boxes, image.proposal_boxes)
            matches, labels = self.proposal_matchers[stage](iou)
            image.gt_classes = label_boxes(target, matches, labels, self.num_classes)
            image.gt_boxes = target.gt_boxes[matches] if len(target) else image.proposal_boxes.clone()
            foreground.append((labels == 1).sum().item())
            background.append(len(labels) - foreground[-1])
        storage = get_event_storage()
        storage.put_scalar(f"stage{stage}/roi_head/num_fg_samples", sum(foreground) / len(foreground))
        storage.put_scalar(f"stage{stage}/roi_head/num_bg_samples", sum(background) / len(background))


def _check_cascade(cfg: CfgNode) -> None:
    model, cascade = cfg.MODEL, cfg.MODEL.ROI_BOX_CASCADE_HEAD
    if len(cascade.IOUS) != len(cascade.BBOX_REG_WEIGHTS):
        raise ValueError(
            f"MODEL.ROI_BOX_CASCADE_HEAD: {len(cascade.IOUS)} IOUS and {len(cascade.BBOX_REG_WEIGHTS)} "
            "BBOX_REG_WEIGHTS; every stage needs one of each"
        )
    if not model.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG:
        raise ValueError("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG must be True with CascadeROIHeads")
    if cascade.IOUS[0] != model.ROI_HEADS.IOU_THRESHOLDS[0]:
        raise ValueError(
            f"MODEL.ROI_BOX_CASCADE_HEAD.IOUS begins with {cascade.IOUS[0]}, MODEL.ROI_HEADS.IOU_THRESHOLDS with "
            f"{model.ROI_HEADS.IOU_THRESHOLDS[0]}: the first stage needs one threshold"
        )
