"""What a VideoClassifier is trained on: random views of clips, or kept features of the spatial model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from eventful_vit.models.clip_views import ClipViews
from torch.utils.data import DataLoader, Dataset, Sampler

from ..data.mapper import VideoTrainLoader
from ..errors import ConfigError
from .clip import Clip
from .clip_frames import ClipFrames, open_clip


class ClipSampler(Sampler):
    """An endless stream of indices in passes of random order; each process takes every n-th."""

    def __init__(self, length: int, seed: int) -> None:
        self.length = length
        self.seed = comm.shared_random_seed() if seed < 0 else seed
        self.images_before = 0
        """Clips that earlier runs of this training have drawn: a resumed one has a stream of its own."""

    def __iter__(self) -> Iterator[int]:
        yield from itertools.islice(self._draw(), comm.get_rank(), None, comm.get_world_size())

    def _draw(self) -> Iterator[int]:
        generator = np.random.default_rng((self.seed, self.images_before))
        while True:
            yield from generator.permutation(self.length).tolist()


class RandomViews(Dataset):
    """One view of a clip, at a random time and place."""

    def __init__(
        self,
        clips: Sequence[Clip],
        views: ClipViews,
        fps: float,
        scale_jitter: tuple[float, float] = (1.0, 1.0),
        memory_bytes: int = 0,
    ) -> None:
        """
        Args:
            scale_jitter: range of the size of frames, where 1.0 just covers a view.
            memory_bytes: how much of decoded clips to keep, in each process that reads from this.
        """
        if not 1.0 <= scale_jitter[0] <= scale_jitter[1]:
            raise ConfigError(f"INPUT.SCALE_JITTER of clips is a range from 1.0 on, found {tuple(scale_jitter)}")
        self.clips = list(clips)
        self.views = replace(views, spans=1, crops=1)
        self.fps = fps
        self.scale_jitter = scale_jitter
        self._room = memory_bytes
        self._kept: dict[int, torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict:
        """Raises DataError, naming line and clip, where the clip cannot be read."""
        clip = self.clips[index]
        frames = self._crop(self._frames(index, clip))
        return {"clip_id": clip.clip_id, "frames": frames, "spans": [range(len(frames))], "labels": dict(clip.labels)}

    def _frames(self, index: int, clip: Clip) -> torch.Tensor:
        """A random span of a clip, (frames, C, H, W) uint8."""
        if index in self._kept:
            whole = self._kept[index]
            return whole[self._span(len(whole))]
        frames = open_clip(clip, self.fps)
        if self._room <= 0:
            return read_frames(frames, self._span(len(frames)))
        whole = read_frames(frames, range(len(frames)))
        self._room -= whole.nbytes
        self._kept[index] = whole
        return whole[self._span(len(whole))]

    def _span(self, length: int) -> list[int]:
        covered = self.views.frames * self.views.stride
        start = int(torch.randint(max(length - covered, 0) + 1, ()))
        return [min(start + self.views.stride * i, length - 1) for i in range(self.views.frames)]

    def _crop(self, frames: torch.Tensor) -> torch.Tensor:
        low, high = self.scale_jitter
        scale = low + (high - low) * float(torch.rand(()))
        size = tuple(round(side * scale) for side in self.views.size)
        frames = replace(self.views, size=size).prepare(frames)
        room = [have - need for have, need in zip(frames.shape[-2:], self.views.size)]
        y, x = (int(torch.randint(slack + 1, ())) for slack in room)
        return frames[..., y : y + self.views.size[0], x : x + self.views.size[1]]


def read_frames(frames: ClipFrames, places: Sequence[int]) -> torch.Tensor:
    """Frames of a clip, (n, C, H, W) uint8, by rising places, some perhaps twice."""
    images = torch.from_numpy(np.stack(list(frames.images(places))))
    return images.permute(0, 3, 1, 2)


def build_clip_train_loader(cfg: CfgNode, dataset: Dataset) -> VideoTrainLoader:
    """Endless batches of inputs of a VideoClassifier in training.

    Raises ConfigError unless SOLVER.IMS_PER_BATCH can be shared out over the processes.
    """
    processes = comm.get_world_size()
    if cfg.SOLVER.IMS_PER_BATCH < 1 or cfg.SOLVER.IMS_PER_BATCH % processes:
        raise ConfigError(
            f"SOLVER.IMS_PER_BATCH = {cfg.SOLVER.IMS_PER_BATCH} is not a multiple of the {processes} processes"
        )
    sampler = ClipSampler(len(dataset), cfg.SEED)
    batches = DataLoader(
        dataset,
        batch_size=cfg.SOLVER.IMS_PER_BATCH // processes,
        sampler=sampler,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=list,
    )
    return VideoTrainLoader(batches, sampler)
