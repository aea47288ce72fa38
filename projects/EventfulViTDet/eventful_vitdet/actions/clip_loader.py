"""Clips as inputs of a VideoClassifier, read ahead of the model by worker processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from detectron2.config import CfgNode
from eventful_vit.models.clip_views import ClipViews, places
from torch.utils.data import DataLoader, Dataset

from ..errors import DataError, describe_error
from .clip import Clip
from .clip_frames import open_clip


class ClipReader(Dataset):
    """The frames that a model's views need of each clip, prepared for it."""

    def __init__(self, clips: Sequence[Clip], views: ClipViews, fps: float) -> None:
        self.clips = list(clips)
        self.views = views
        self.fps = fps

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict:
        """An input of VideoClassifier, or {"clip_id", "error"} where the clip cannot be read."""
        clip = self.clips[index]
        try:
            return self.read(clip)
        except DataError as error:  # for the reader of the loader to decide
            return {"clip_id": clip.clip_id, "error": describe_error(error)}

    def read(self, clip: Clip) -> dict:
        """An input of VideoClassifier. Raises DataError."""
        frames = open_clip(clip, self.fps)
        needed, spans = places(self.views.frame_numbers(len(frames)))
        # One frame at a time, so that large ones need no memory.
        prepared = [self._prepare(image) for image in frames.images(needed)]
        return {"clip_id": clip.clip_id, "frames": torch.cat(prepared), "spans": spans, "labels": dict(clip.labels)}

    def _prepare(self, image: np.ndarray) -> torch.Tensor:
        """(1, C, h, w)"""
        return self.views.prepare(torch.from_numpy(image).permute(2, 0, 1)[None])


def load_clips(cfg: CfgNode, clips: Sequence[Clip], views: ClipViews) -> Iterator[dict]:
    """Inputs of a VideoClassifier for some clips, in their order (see ClipReader)."""
    reader = ClipReader(clips, views, cfg.MODEL.VIVIT.FPS)
    workers = min(cfg.DATALOADER.NUM_WORKERS, len(clips))
    return iter(DataLoader(reader, batch_size=None, num_workers=workers, prefetch_factor=2 if workers else None))
