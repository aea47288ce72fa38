"""The processes of one evaluation: waiting for each other, and bringing their results together."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from detectron2.utils import comm

from ..data.files import write_atomically
from .errors import EvaluationError
from .store import record_path

LONGEST_WAIT = timedelta(days=30)


@contextmanager
def fixed_threads(number: int) -> Iterator[int]:
    """Let PyTorch use this many CPU threads within the context (0: as many as it does by itself); yields the number."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


@contextmanager
def patience() -> Iterator[Callable[[], None]]:
    """Yields a function that waits until every process has called it, even if the slowest needs hours longer.

    PyTorch's own patience, half an hour, would end an evaluation of which one process has the long videos. All
    processes enter the context together.
    """
    if comm.get_world_size() == 1:
        yield lambda: None
        return
    group = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)

    def wait() -> None:
        try:
            dist.barrier(group=group)
        except RuntimeError as error:
            raise EvaluationError(
                "another process of this evaluation has ended before its time; its own message says why. Finished "
                "videos are safe, and the same command goes on from there"
            ) from error

    yield wait
    dist.destroy_process_group(group)


def fetch_records(folder: str, video_ids: Iterable[int | str]) -> None:
    """Copy the records that only other machines have into the first process's folder, one after the other.

    With a folder that all machines share there is nothing to do. All processes call this together.
    """
    here = [video_id for video_id in video_ids if os.path.isfile(record_path(folder, video_id))]
    held = comm.all_gather(here)
    for video_id in sorted(set().union(*held) - set(held[0]), key=str):
        holder = next(rank for rank, ids in enumerate(held) if video_id in ids)
        content = None
        if comm.get_rank() == holder:
            with open(record_path(folder, video_id), "rb") as file:
                content = file.read()
        parts = comm.gather(content, dst=0)
        if comm.is_main_process():
            write_atomically(record_path(folder, video_id), parts[holder])
