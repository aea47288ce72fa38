"""What the processes of one run tell each other; all of it works, trivially, in a single process."""

from __future__ import annotations

import functools
import os
from typing import Any

import numpy as np
import torch
import torch.distributed as dist


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if _is_distributed() else 1


def get_rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if _is_distributed() else 0


def create_local_process_group(num_workers_per_machine: int) -> None:
    """Say how many processes every machine has; here, the launcher's variables say it already."""
    if get_world_size() % num_workers_per_machine:
        raise ValueError(f"{get_world_size()} processes cannot be {num_workers_per_machine} on every machine")


def get_local_rank() -> int:
    """Number of this process on its machine: the variable LOCAL_RANK, which `launch` or torchrun sets."""
    return int(os.environ.get("LOCAL_RANK", get_rank())) if _is_distributed() else 0


def is_main_process() -> bool:
    """True in the one process that writes files."""
    return get_rank() == 0


def synchronize() -> None:
    """Wait until every process has come here."""
    if get_world_size() > 1:
        # NCCL would guess the device, and warn.
        dist.barrier(device_ids=[torch.cuda.current_device()] if dist.get_backend() == "nccl" else None)


@functools.lru_cache
def _cpu_group() -> dist.ProcessGroup:
    """A group whose messages travel through main memory: gathering objects then needs no GPU memory."""
    return dist.new_group(backend="gloo") if dist.get_backend() == "nccl" else dist.group.WORLD


def all_gather(data: Any) -> list[Any]:
    """The (picklable) ``data`` of every process, ordered by rank, in every process."""
    if get_world_size() == 1:
        return [data]
    gathered: list[Any] = [None] * get_world_size()
    dist.all_gather_object(gathered, data, group=_cpu_group())
    return gathered


def gather(data: Any, dst: int = 0) -> list[Any]:
    """The (picklable) ``data`` of every process, ordered by rank, in process ``dst``; elsewhere []."""
    if get_world_size() == 1:
        return [data]
    gathered = [None] * get_world_size() if get_rank() == dst else None
    dist.gather_object(data, gathered, dst=dst, group=_cpu_group())
    return gathered or []


def shared_random_seed() -> int:
    """A random number that is the same in all processes, which must call this together."""
    return all_gather(int(np.random.randint(2**31)))[0]
