"""Sampling of training frames that evens out scarce classes and videos of different length."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from detectron2.utils import comm
from torch.utils.data import Sampler

from .errors import DatasetError


class ClassBalancedSampler(Sampler):
    """An endless stream of frame indices: a class, then one of its videos, then one of that video's frames.

    A class is drawn with a probability in proportion to the square root of the number of videos that show it, a
    compromise between the classes' own frequency and equal shares. In a run of several processes each takes every n-th
    index of the same stream.
    """

    def __init__(self, frames: list[dict], seed: int = -1) -> None:
        """
        Args:
            frames: data-set dicts; frames without annotations are never drawn.
            seed: of the random stream; below 0, processes agree on a random one.

        Raises DatasetError if no frame has annotations.
        """
        self._rank, self._processes = comm.get_rank(), comm.get_world_size()
        self._seed = comm.shared_random_seed() if seed < 0 else seed
        videos: dict[int, dict] = defaultdict(lambda: defaultdict(list))
        for index, frame in enumerate(frames):
            for category in {annotation["category_id"] for annotation in frame["annotations"]}:
                videos[category][frame["video_id"]].append(index)
        self._frames = [list(videos[category].values()) for category in sorted(videos)]
        if not videos:
            raise DatasetError("DATALOADER.BALANCE_CLASSES is on, but no training frame has an annotation")
        weights = np.sqrt([len(of_class) for of_class in self._frames])
        self._class_shares = weights / weights.sum()

    def __iter__(self) -> Iterator[int]:
        yield from itertools.islice(self._draw(), self._rank, None, self._processes)

    def _draw(self) -> Iterator[int]:
        generator = np.random.default_rng(self._seed)
        while True:
            videos = self._frames[generator.choice(len(self._frames), p=self._class_shares)]
            video = videos[generator.integers(len(videos))]
            yield video[generator.integers(len(video))]
