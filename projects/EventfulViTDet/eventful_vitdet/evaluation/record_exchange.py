"""The records of finished videos, brought together from all machines of an evaluation."""

from __future__ import annotations

import os
from collections.abc import Iterable

from detectron2.utils import comm

from ..files import write_atomically
from .store import record_path


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
