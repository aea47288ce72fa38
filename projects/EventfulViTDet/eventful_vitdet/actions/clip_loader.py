"""Clips as inputs of a VideoClassifier, read ahead of the model by worker processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from detectron2.config import CfgNode
from eventful_vit.models.clip_views import ClipViews, places
from torch.utils.data import DataLoader, Dataset

from ..errors import DataError, describe_error
from .clip import Clip
from .clip_frames import ClipFrames, open_clip


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
        except DataError as error:  # for whoever reads the loader to decide
            return {"clip_id": clip.clip_id, "error": describe_error(error)}

    def read(self, clip: Clip) -> dict:
        """An input of VideoClassifier. Raises DataError."""
        frames = open_clip(clip, self.fps)
        needed, spans = places(self.views.frame_numbers(len(frames)))
        prepared = self._prepare(frames, needed)
        return {"clip_id": clip.clip_id, "frames": prepared, "spans": spans, "labels": dict(clip.labels)}

    def _prepare(self, frames: ClipFrames, needed: Sequence[int]) -> torch.Tensor:
        """(n, C, h, w). One frame at a time, so that large ones need no memory."""
        clip, prepared, size = frames.clip, [], None
        try:
            for image in frames.images(needed):
                size = size or image.shape
                if image.shape != size:
                    raise DataError(f"{clip.path} has frames of several sizes: {image.shape[:2]} after {size[:2]}")
                prepared.append(self.views.prepare(torch.from_numpy(image).permute(2, 0, 1)[None]))
        except DataError as error:
            raise DataError(f"{clip.place}: clip {clip.clip_id}: {error}") from error
        return torch.cat(prepared)


def load_clips(cfg: CfgNode, clips: Sequence[Clip], views: ClipViews) -> Iterator[dict]:
    """Inputs of a VideoClassifier for some clips, in their order (see ClipReader)."""
    reader = ClipReader(clips, views, cfg.MODEL.VIVIT.FPS)
    workers = min(cfg.DATALOADER.NUM_WORKERS, len(clips))
    return iter(DataLoader(reader, batch_size=None, num_workers=workers, prefetch_factor=2 if workers else None))
