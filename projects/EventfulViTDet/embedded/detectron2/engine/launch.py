"""Starting one process per GPU (or, without GPUs, several CPU processes)."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from typing import Callable

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm

TIMEOUT = timedelta(minutes=30)


def launch(
    main_func: Callable[..., None],
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple = (),
) -> None:
    """Run ``main_func(*args)`` in ``num_gpus_per_machine`` processes on each machine, joined by NCCL, or by
    gloo where no GPU is visible. A single process runs here, without any of that.

    ``dist_url`` is where the processes meet, e.g. "tcp://host:port"; "auto" takes a free port (one machine).
    """
    world_size = num_machines * num_gpus_per_machine
    if world_size <= 1:
        main_func(*args)
        return
    if torch.cuda.is_available() and num_gpus_per_machine > torch.cuda.device_count():
        raise ValueError(
            f"--num-gpus is {num_gpus_per_machine}, but {torch.cuda.device_count()} GPUs are visible "
            "(for CPU processes hide them: CUDA_VISIBLE_DEVICES='')"
        )
    if dist_url == "auto":
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            dist_url = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    first_rank = machine_rank * num_gpus_per_machine
    mp.spawn(_run, (main_func, args, first_rank, world_size, dist_url), nprocs=num_gpus_per_machine)


def _run(
    local_rank: int, main_func: Callable[..., None], args: tuple, first_rank: int, world_size: int, url: str
) -> None:
    os.environ["LOCAL_RANK"] = str(local_rank)
    backend = "gloo"
    if torch.cuda.is_available():
        backend = "nccl"
        torch.cuda.set_device(local_rank)
    rank = first_rank + local_rank
    dist.init_process_group(backend, init_method=url, world_size=world_size, rank=rank, timeout=TIMEOUT)
    try:
        comm.synchronize()
        main_func(*args)
    finally:
        dist.destroy_process_group()
