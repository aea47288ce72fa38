"""One evaluation at a time in a folder: two would delete or mix each other's records."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from detectron2.utils import comm

from ..errors import EvaluationError
from ..file_locks import try_lock

LOCK_FILE = ".lock"
PATIENCE_SECONDS = 60.0
"""So long an evaluation waits for another one: processes of a command that was killed take seconds to notice."""
LOOK_SECONDS = 0.5

logger = logging.getLogger(__name__)


@contextmanager
def exclusive(folder: str) -> Iterator[None]:
    """Hold the folder of an evaluation within this context, in the first process; the others need not.

    However that process ends, the folder is free again. Raises EvaluationError if another command holds it and goes on
    holding it.
    """
    if not comm.is_main_process():
        yield
        return
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, LOCK_FILE), "w") as file:
        _wait_for(file, folder)
        yield


def _wait_for(file: IO[str], folder: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    waiting = False
    while not try_lock(file, folder, "see that no other evaluation runs there"):
        if time.monotonic() > deadline:
            raise EvaluationError(
                f"{folder}: another evaluation is running there; wait for its end, or choose another OUTPUT_DIR"
            )
        if not waiting:
            logger.info("%s: waiting for another evaluation that is running there", folder)
            waiting = True
        time.sleep(LOOK_SECONDS)
