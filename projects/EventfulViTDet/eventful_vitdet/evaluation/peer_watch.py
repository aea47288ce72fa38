"""How the processes of an evaluation notice, on whatever machine they are, that one of them has failed."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from detectron2.utils import comm

from ..errors import EvaluationError

RUNNING, DONE, FAILED = 0, 1, -1
BEAT_SECONDS = 1.0
GRACE_SECONDS = 5.0
"""So long the others leave to the process that failed, or its launcher, to say what is wrong."""
SILENCE = timedelta(minutes=10)
"""After which a process counts as gone whose connection is still there, as when its machine loses power."""


class Pulse:
    """A thread that tells the other processes every second how this one is, and ends it when one of them has failed.

    While a process runs its videos it has no other reason to talk to the others, and could go on for hours.
    """

    def __init__(self) -> None:
        self._group = dist.new_group(backend="gloo", timeout=SILENCE)
        self._state = RUNNING
        self._changed = threading.Event()
        self._over = threading.Event()
        self.failed = False
        """Whether another process has failed."""
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)
        self._thread.start()

    def finish(self, state: int) -> None:
        """Say that this process is done or has failed; if it is done, wait for the others, however long they take."""
        self._state = state
        self._changed.set()
        self._over.wait(None if state == DONE else 2 * GRACE_SECONDS)

    def close(self) -> None:
        """Release the connections, after all are done."""
        self._thread.join()
        dist.destroy_process_group(self._group)

    def _beat(self) -> None:
        worst = RUNNING
        while worst == RUNNING:
            self._changed.wait(BEAT_SECONDS)
            states = torch.tensor([self._state])
            try:
                dist.all_reduce(states, op=dist.ReduceOp.MIN, group=self._group)
                worst = int(states)
            except RuntimeError:  # a connection broke, or was silent
                worst = FAILED
            self._changed.clear()
        if worst == FAILED and self._state != FAILED:
            self.failed = True
            threading.Event().wait(GRACE_SECONDS)
            if self._state == RUNNING:
                _thread.interrupt_main()
        self._over.set()


@contextmanager
def shared_fate() -> Iterator[None]:
    """Within this context all processes of the evaluation go on, or none; its end waits for all of them.

    All processes enter it together. Raises EvaluationError if another one fails or is gone.
    """
    if comm.get_world_size() == 1:
        yield
        return
    pulse = Pulse()
    try:
        yield
        pulse.finish(DONE)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and pulse.failed:  # from the pulse, not from the user
            raise _peer_failed() from None
        pulse.finish(FAILED)
        raise
    if pulse.failed:
        raise _peer_failed()
    pulse.close()


def _peer_failed() -> EvaluationError:
    return EvaluationError(
        "another process of this evaluation has failed or was ended; its own message says why. Finished videos are "
        "safe, and the same command goes on from there"
    )
