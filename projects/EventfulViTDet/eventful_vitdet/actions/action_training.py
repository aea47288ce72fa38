"""Training a VideoClassifier: all of it on random views, or its temporal part on kept features (the paper's
fine-tuning)."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from torch import nn

from ..data.mapper import VideoTrainLoader
from ..errors import ConfigError
from ..modeling.video_classifier import build_views, parse_heads
from ..training import VideoTrainer, check_solver, unwrap
from .action_sets import load_action_set
from .clip import Clip
from .evaluate_actions import evaluate_actions
from .feature_cache import fill_feature_cache
from .training_clips import RandomViews, build_clip_train_loader

MEGABYTE = 1 << 20


class ActionTrainer(VideoTrainer):
    """Trains a VideoClassifier, as VideoTrainer trains detectors.

    With MODEL.VIVIT.FREEZE_SPATIAL, temporal model and classifiers are trained, on features that the spatial model has
    with its gates on. They are computed once and kept below DATALOADER.FEATURE_CACHE.
    """

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__(cfg)
        self._needs_features = cfg.MODEL.VIVIT.FREEZE_SPATIAL and bool(cfg.DATALOADER.FEATURE_CACHE)

    @classmethod
    def check(cls, cfg: CfgNode) -> None:
        check_solver(cfg)
        for name in cfg.DATASETS.TEST:
            load_action_set(name, {}, cfg.TEST.ON_BAD_VIDEO)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> VideoTrainLoader:
        memory = cfg.DATALOADER.CLIP_MEMORY_MB * MEGABYTE
        clips, views = load_training_clips(cfg), build_views(cfg)
        dataset = RandomViews(clips, views, cfg.MODEL.VIVIT.FPS, tuple(cfg.INPUT.SCALE_JITTER), memory)
        return build_clip_train_loader(cfg, dataset)

    def train(self) -> Any:
        if self._needs_features:  # only now are the weights loaded
            clips = self._trainer.data_loader.batches.dataset.clips
            features = fill_feature_cache(self.cfg, unwrap(self.model), clips)
            loader = build_clip_train_loader(self.cfg, features)
            loader.continue_after(self.start_iter * self.cfg.SOLVER.IMS_PER_BATCH)
            self._trainer.data_loader = loader
        return super().train()

    @classmethod
    def evaluate(cls, cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
        return evaluate_actions(cfg, model, restart=True)


def load_training_clips(cfg: CfgNode) -> list[Clip]:
    """The clips of DATASETS.TRAIN, one data set after the other."""
    heads = parse_heads(cfg.MODEL.VIVIT.CLASSES)
    sets = [load_action_set(name, heads, cfg.DATALOADER.ON_BAD_VIDEO) for name in cfg.DATASETS.TRAIN]
    clips = [clip for actions in sets for clip in actions.clips]
    if not clips:
        raise ConfigError("DATASETS.TRAIN names no data set with clips")
    return clips
