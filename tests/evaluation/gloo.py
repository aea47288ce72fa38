"""Several processes on this machine, forked: they begin in milliseconds, where a new interpreter takes seconds."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta

import cv2
import torch
import torch.distributed as dist
from detectron2.utils import comm


def run_forked(
    number: int, function: Callable[..., object], *args: object, timeout: float = 60, patience: float = 600
) -> list[int | None]:
    """Call a function in processes of one gloo group (1: in one without a group); returns their exit codes.

    Processes that run for longer than `timeout` seconds are killed; `patience` is the group's own timeout.
    """
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{folder}/meeting"
        processes = [
            context.Process(target=_child, args=(rank, number, meeting, patience, function, args))
            for rank in range(number)
        ]
        # OpenCV's threads end here: a child waits for ever where it finds a pool whose threads it does not have.
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        for process in processes:
            process.start()
        cv2.setNumThreads(threads)
        for process in processes:
            process.join(timeout)
            if process.is_alive():
                process.kill()
                process.join()
    return [process.exitcode for process in processes]


def _child(rank: int, number: int, meeting: str, patience: float, function: Callable[..., object], args: tuple) -> None:
    # The threads that the parent's libraries had started do not exist here.
    torch.set_num_threads(1)
    try:
        if number > 1:
            limit = timedelta(seconds=patience)
            dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=number, timeout=limit)
            comm.create_local_process_group(number)
        function(*args)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)
