"""Building blocks of data loading."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Callable

from torch.utils import data

_MAX_TRIES = 100


class MapDataset(data.Dataset):
    """``map_func`` applied to a copy of each element; where it returns None, a random other one steps in."""

    def __init__(self, dataset: Sequence | data.Dataset, map_func: Callable[[Any], Any]) -> None:
        self._dataset = dataset
        self._map_func = map_func

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        chosen = index
        for _ in range(_MAX_TRIES):
            mapped = self._map_func(copy.deepcopy(self._dataset[chosen]))
            if mapped is not None:
                return mapped
            chosen = random.randrange(len(self))
        raise RuntimeError(f"the mapper returned None {_MAX_TRIES} times in a row, first for element {index}")


class AspectRatioGroupedDataset(data.IterableDataset):
    """Batches of dicts with "width" and "height" that are all wider than high, or all not."""

    def __init__(self, dataset: Iterable[dict], batch_size: int) -> None:
        self._dataset = dataset
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[list[dict]]:
        groups: dict[bool, list[dict]] = {True: [], False: []}
        for element in self._dataset:
            is_wide = element["width"] > element["height"]
            groups[is_wide].append(element)
            if len(groups[is_wide]) == self._batch_size:
                yield groups[is_wide]
                groups[is_wide] = []
