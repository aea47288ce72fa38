"""The training data loader."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Callable

import torch
from detectron2.config import CfgNode, configurable
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from torch.utils.data import DataLoader, Dataset, Sampler

from .common import AspectRatioGroupedDataset, MapDataset
from .samplers import TrainingSampler


def _arguments_from_config(
    cfg: CfgNode,
    mapper: Callable[[dict], Any],
    *,
    dataset: list[dict] | Dataset,
    sampler: Sampler | None = None,
) -> dict[str, Any]:
    if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
        raise ValueError(f"DATALOADER.SAMPLER_TRAIN is {cfg.DATALOADER.SAMPLER_TRAIN}, not TrainingSampler")
    return {
        "dataset": dataset,
        "mapper": mapper,
        "sampler": sampler or TrainingSampler(len(dataset), seed=cfg.SEED if cfg.SEED >= 0 else None),
        "total_batch_size": cfg.SOLVER.IMS_PER_BATCH,
        "aspect_ratio_grouping": cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
    }


@configurable(from_config=_arguments_from_config)
def build_detection_train_loader(
    dataset: list[dict] | Dataset,
    *,
    mapper: Callable[[Any], Any] | None,
    sampler: Sampler | None = None,
    total_batch_size: int,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
) -> Iterable[list]:
    """An endless stream of batches, each a list of what ``mapper`` returns.

    Called with these arguments, or as ``(cfg, mapper=..., dataset=...)``. ``total_batch_size`` is the sum
    over all processes. ``aspect_ratio_grouping`` needs mapped dicts with "width" and "height".
    """
    batch_size, rest = divmod(total_batch_size, comm.get_world_size())
    if batch_size < 1 or rest:
        raise ValueError(
            f"a batch of {total_batch_size} (SOLVER.IMS_PER_BATCH) cannot be divided among "
            f"{comm.get_world_size()} processes"
        )
    dataset = dataset if mapper is None else MapDataset(dataset, mapper)
    loader = DataLoader(
        dataset,
        sampler=sampler or TrainingSampler(len(dataset)),
        batch_size=None if aspect_ratio_grouping else batch_size,
        num_workers=num_workers,
        collate_fn=_unchanged,
        worker_init_fn=_seed_worker,
    )
    return AspectRatioGroupedDataset(loader, batch_size) if aspect_ratio_grouping else loader


def _unchanged(batch: Any) -> Any:
    return batch


def _seed_worker(worker_id: int) -> None:
    seed_all_rng(torch.initial_seed() % 2**31)  # which differs between workers
