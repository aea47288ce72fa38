"""Letting a detector give more detections than its configuration asks for, to choose from later."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from detectron2.config import CfgNode
from torch import nn

from ..errors import ConfigError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredDetections:
    """Which detections an evaluation stores."""

    score_floor: float
    """Scores are above this."""
    per_image: int
    """At most so many per frame; below 0, any number."""

    @classmethod
    def of(cls, cfg: CfgNode) -> StoredDetections:
        """What VID-AP50 needs, and what the configuration's own thresholds ask for. Raises ConfigError."""
        floor, limit = cfg.TEST.VID_SCORE_FLOOR, cfg.TEST.VID_DETECTIONS_PER_IMAGE
        if not 0.0 <= floor < 1.0:
            raise ConfigError(f"TEST.VID_SCORE_FLOOR must be 0 or larger and below 1, found {floor}")
        if limit < 1:
            raise ConfigError(f"TEST.VID_DETECTIONS_PER_IMAGE must be 1 or larger, found {limit}")
        threshold, wanted = cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST, cfg.TEST.DETECTIONS_PER_IMAGE
        if threshold < floor:
            logger.info("MODEL.ROI_HEADS.SCORE_THRESH_TEST = %g is also the floor of VID-AP50", threshold)
        return cls(min(floor, threshold), -1 if wanted < 0 else max(limit, wanted))

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Have a model's box predictors give these detections within the context."""
        predictors = [module for module in model.modules() if hasattr(module, "test_topk_per_image")]
        before = [(module.test_score_thresh, module.test_topk_per_image) for module in predictors]
        for module in predictors:
            module.test_score_thresh, module.test_topk_per_image = self.score_floor, self.per_image
        try:
            yield
        finally:
            for module, (threshold, limit) in zip(predictors, before):
                module.test_score_thresh, module.test_topk_per_image = threshold, limit
