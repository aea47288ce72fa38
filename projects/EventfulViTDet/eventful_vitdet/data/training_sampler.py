"""Which training frame comes next: data sets mixed at a set ratio, frames shuffled or drawn evenly over classes."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from detectron2.utils import comm
from torch.utils.data import Sampler

from ..errors import ConfigError, DatasetError


class Candidate(NamedTuple):
    """A frame that may be drawn."""

    index: int
    """What the sampler gives out: the frame's place among the frames of all data sets."""
    dataset: int
    """Number of its data set."""
    frame: dict


class MixedSampler(Sampler):
    """An endless stream of frame indices over several data sets, counted through from the first to the last.

    With ratios, every index is drawn in two steps: a data set, with a probability in proportion to its ratio, then its
    next frame. Without, all frames form one data set. Frames come in passes, each reshuffled, or, with
    `balance_classes`, as `ClassBalance` draws them.

    In a run of several processes each takes every n-th index of the same stream, which depends on the seed alone.
    """

    def __init__(
        self,
        datasets: Sequence[Sequence[dict]],
        ratios: Sequence[float] = (),
        *,
        balance_classes: bool = False,
        seed: int = -1,
    ) -> None:
        """
        Args:
            datasets: the frame dicts of each data set.
            ratios: a positive number per data set, of any sum; empty: every frame equally often.
            seed: of the random stream; below 0, processes agree on a random one.

        Raises:
            ConfigError: the ratios do not fit the data sets.
            DatasetError: classes are to be balanced, and a data set has no annotation.
        """
        check_ratios(ratios, len(datasets))
        self._rank, self._processes = comm.get_rank(), comm.get_world_size()
        self._seed = comm.shared_random_seed() if seed < 0 else seed
        listed = [(number, frame) for number, frames in enumerate(datasets) for frame in frames]
        candidates = [Candidate(index, number, frame) for index, (number, frame) in enumerate(listed)]
        pools = [candidates]
        if ratios:
            pools = [[c for c in candidates if c.dataset == number] for number in range(len(datasets))]
        self._pools = [(ClassBalance if balance_classes else Shuffled)(pool) for pool in pools]
        self._shares = np.divide(ratios, sum(ratios)) if ratios else np.ones(1)
        self.images_before = 0
        """Images that earlier runs of this training have drawn, in all processes together. A resumed run draws a
        stream of its own, so that it does not repeat the beginning of the first one."""

    def __iter__(self) -> Iterator[int]:
        yield from itertools.islice(self._draw(), self._rank, None, self._processes)

    def _draw(self) -> Iterator[int]:
        choice, *seeds = np.random.SeedSequence((self._seed, self.images_before)).spawn(1 + len(self._pools))
        streams = [pool.draw(np.random.default_rng(seed)) for pool, seed in zip(self._pools, seeds)]
        if len(streams) == 1:
            yield from streams[0]
        generator = np.random.default_rng(choice)
        while True:
            yield next(streams[generator.choice(len(streams), p=self._shares)])


def check_ratios(ratios: Sequence[float], datasets: int) -> None:
    """Raise ConfigError unless there is one positive number for every data set, or none at all."""
    key = "DATALOADER.DATASET_RATIOS"
    if len(ratios) not in (0, datasets):
        raise ConfigError(f"{key} has {len(ratios)} numbers, but DATASETS.TRAIN names {datasets} data sets")
    for ratio in ratios:
        if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 < ratio < np.inf:
            raise ConfigError(f"{key} holds {ratio!r}; a ratio is a positive number (leave a data set out by its name)")


class Shuffled:
    """Endless passes over the frames, each in a new order."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._indices = np.array([candidate.index for candidate in candidates], dtype=np.int64)

    def draw(self, generator: np.random.Generator) -> Iterator[int]:
        while True:
            yield from generator.permutation(self._indices).tolist()


class ClassBalance:
    """Draws a class, then one of its videos, then one of the frames in which that video shows it.

    A class is drawn with a probability in proportion to the square root of the number of videos that show it, a
    compromise between the classes' own frequency and equal shares. Frames without annotations are never drawn. A
    single image is a video of one frame.
    """

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        """Raises DatasetError if no frame has an annotation."""
        videos: dict[int, dict] = defaultdict(lambda: defaultdict(list))
        for index, dataset, frame in candidates:
            for category in {a["category_id"] for a in frame["annotations"] if not a.get("iscrowd", 0)}:
                # Numbers of videos mean something within their data set only.
                videos[category][dataset, frame["video_id"]].append(index)
        if not videos:
            raise DatasetError("DATALOADER.BALANCE_CLASSES is on, but no training frame has an annotation")
        self._frames = [list(videos[category].values()) for category in sorted(videos)]
        weights = np.sqrt([len(of_class) for of_class in self._frames])
        self._class_shares = weights / weights.sum()

    def draw(self, generator: np.random.Generator) -> Iterator[int]:
        while True:
            videos = self._frames[generator.choice(len(self._frames), p=self._class_shares)]
            video = videos[generator.integers(len(videos))]
            yield video[generator.integers(len(video))]
