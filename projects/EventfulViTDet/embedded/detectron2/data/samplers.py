from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from detectron2.utils import comm
from torch.utils.data import Sampler


class TrainingSampler(Sampler):
    """Endless passes over ``range(size)``, each reshuffled; process r of n takes every n-th, from r on."""

    def __init__(self, size: int, *, seed: int | None = None) -> None:
        """With ``seed=None`` the processes agree on a random one, so all of them must come here together."""
        self._size = size
        self._seed = comm.shared_random_seed() if seed is None else seed

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(self._all_processes(), comm.get_rank(), None, comm.get_world_size())

    def _all_processes(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(self._seed)
        while True:
            yield from torch.randperm(self._size, generator=generator).tolist()
