from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import ImageList, Instances
from fvcore.common.registry import Registry
from torch import nn

from ..backbone import BACKBONE_REGISTRY, Backbone
from ..postprocessing import detector_postprocess
from ..proposal_generator import RPN
from ..roi_heads import build_roi_heads

META_ARCH_REGISTRY = Registry("META_ARCH")


def build_model(cfg: CfgNode) -> nn.Module:
    """The model registered as ``MODEL.META_ARCHITECTURE``, on ``MODEL.DEVICE``, with no weights loaded."""
    return META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)(cfg).to(torch.device(cfg.MODEL.DEVICE))


@META_ARCH_REGISTRY.register()
class GeneralizedRCNN(nn.Module):
    """A two-stage detector: backbone, proposals, classification and refinement of every proposal."""

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        proposal_generator: nn.Module,
        roi_heads: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ):
        """``pixel_mean``, ``pixel_std``: per channel, in the images' order and on their scale."""
        super().__init__()
        if len(pixel_mean) != len(pixel_std):
            raise ValueError(f"MODEL.PIXEL_MEAN {pixel_mean} and MODEL.PIXEL_STD {pixel_std} differ in length")
        self.backbone = backbone
        self.proposal_generator = proposal_generator
        self.roi_heads = roi_heads
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        build_backbone = BACKBONE_REGISTRY.get(cfg.MODEL.BACKBONE.NAME)
        backbone = build_backbone(cfg, ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN)))
        return {
            "backbone": backbone,
            "proposal_generator": RPN(cfg, backbone.output_shape()),
            "roi_heads": build_roi_heads(cfg, backbone.output_shape()),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict[str, Any]]):
        """
        Args:
            batched_inputs: a dict per image: "image" (C, H, W); in training "instances" with ``gt_boxes``,
                ``gt_classes`` and, for masks, ``gt_masks``; in inference "height" and "width" to report boxes for (else
                the image's).

        Returns:
            In training the losses by name; in inference ``[{"instances": Instances}, ...]`` with
            ``pred_boxes``, ``scores``, ``pred_classes`` and, where the model has masks, ``pred_masks`` (N, H, W),
            best score first.
        """
        if not self.training:
            return self.inference(batched_inputs)
        targets = [item["instances"].to(self.device) for item in batched_inputs]
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        proposals, proposal_losses = self.proposal_generator(images, features, targets)
        _, detector_losses = self.roi_heads(images, features, proposals, targets)
        return {**detector_losses, **proposal_losses}

    def inference(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Instances]]:
        """See ``forward``."""
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        proposals, _ = self.proposal_generator(images, features, None)
        results, _ = self.roi_heads(images, features, proposals, None)
        return [
            {"instances": detector_postprocess(found, item.get("height", height), item.get("width", width))}
            for found, item, (height, width) in zip(results, batched_inputs, images.image_sizes)
        ]

    def preprocess_image(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalise the images, then pad them into one batch as the backbone wants it."""
        normalised = [(item["image"].to(self.device) - self.pixel_mean) / self.pixel_std for item in batched_inputs]
        return ImageList.from_tensors(normalised, padding_constraints=self.backbone.padding_constraints)
