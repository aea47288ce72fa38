"""Waiting for the other processes of an evaluation, whose videos may take hours longer."""

from __future__ import annotations

import functools
import time
from datetime import timedelta

import torch.distributed as dist
from detectron2.utils import comm

from ..errors import EvaluationError

LONGEST_WAIT = timedelta(days=30)
LOOK_SECONDS = 0.1
GRACE_SECONDS = 5.0
"""How long a process that lost another one waits for the launcher, which knows the reason, to end it."""


@functools.cache
def _group() -> dist.ProcessGroup:
    # Made once and never destroyed: with some versions of PyTorch, destroying a group right after its last operation
    # can wait for ever, for a thread that waits for Python's lock.
    return dist.new_group(backend="gloo", timeout=LONGEST_WAIT)


def wait_for_all() -> None:
    """Return when every process has come here, however long that takes; Ctrl-C interrupts it.

    Raises EvaluationError if another process has ended.
    """
    if comm.get_world_size() == 1:
        return
    try:
        work = dist.barrier(group=_group(), async_op=True)
        while not work.is_completed():  # a blocking wait would hold back signals
            time.sleep(LOOK_SECONDS)
        work.wait()
    except RuntimeError as error:
        time.sleep(GRACE_SECONDS)
        raise EvaluationError(
            "another process of this evaluation has failed or was ended; its own message says why. Finished videos are "
            "safe: rerun the same command to resume"
        ) from error
