"""The training data loader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Callable

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch.utils.data import DataLoader, Dataset, Sampler

from .samplers import TrainingSampler


def build_detection_train_loader(
    cfg: CfgNode, *, mapper: Callable[[dict], dict], dataset: list[dict], sampler: Sampler | None = None
) -> Iterable[list[dict]]:
    """An endless stream of batches, each a list of what ``mapper`` makes of the dicts in ``dataset``.

    The images of a batch are all wider than high, or all not ("width" and "height" of the mapped dicts).

    Raises:
        ValueError: SOLVER.IMS_PER_BATCH, which all processes share, cannot be divided among them.
    """
    batch_size, rest = divmod(cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size())
    if batch_size < 1 or rest:
        raise ValueError(
            f"a batch of {cfg.SOLVER.IMS_PER_BATCH} (SOLVER.IMS_PER_BATCH) cannot be divided among "
            f"{comm.get_world_size()} processes"
        )
    loader = DataLoader(
        _MappedDataset(dataset, mapper),
        sampler=sampler or TrainingSampler(len(dataset), seed=cfg.SEED if cfg.SEED >= 0 else None),
        batch_size=None,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=_unchanged,
        worker_init_fn=_seed_worker,
    )
    return _group_by_aspect_ratio(loader, batch_size)


class _MappedDataset(Dataset):
    def __init__(self, dataset: list[dict], mapper: Callable[[dict], dict]) -> None:
        self._dataset = dataset
        self._mapper = mapper

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> dict:
        return self._mapper(self._dataset[index])


def _group_by_aspect_ratio(elements: Iterable[dict], batch_size: int) -> Iterator[list[dict]]:
    groups: dict[bool, list[dict]] = {True: [], False: []}
    for element in elements:
        is_wide = element["width"] > element["height"]
        groups[is_wide].append(element)
        if len(groups[is_wide]) == batch_size:
            yield groups[is_wide]
            groups[is_wide] = []


def _unchanged(element: Any) -> Any:
    return element


def _seed_worker(worker_id: int) -> None:
    seed_all_rng(torch.initial_seed() % 2**31)  # which differs between workers
