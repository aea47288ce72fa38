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


def patient_group() -> dist.ProcessGroup | None:
    """The group whose processes wait for each other as long as it takes; None for a single process.

    To be called first when all processes are at the same point: that it is made is not interruptible.
    """
    return _make_group(dist.group.WORLD) if comm.get_world_size() > 1 else None


@functools.cache
def _make_group(world: dist.ProcessGroup) -> dist.ProcessGroup:
    # One for all evaluations, as long as the world is there. With some versions of PyTorch, destroying a group right
    # after its last operation can wait for ever: for a thread of the group that waits for Python's lock, to delete
    # that operation's tensor.
    return dist.new_group(backend="gloo", timeout=LONGEST_WAIT)


def wait_for_all() -> None:
    """Return when every process has come here, however long that takes; Ctrl-C interrupts it.

    Raises EvaluationError if another process has ended.
    """
    group = patient_group()
    if group is None:
        return
    try:
        work = dist.barrier(group=group, async_op=True)
        while not work.is_completed():  # a blocking wait would hold back signals
            time.sleep(LOOK_SECONDS)
        work.wait()
    except RuntimeError as error:
        time.sleep(GRACE_SECONDS)
        raise EvaluationError(
            "another process of this evaluation has failed or was ended; its own message says why. Finished videos are "
            "safe: rerun the same command to resume"
        ) from error
