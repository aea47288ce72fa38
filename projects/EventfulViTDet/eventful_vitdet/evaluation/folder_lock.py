"""One evaluation at a time in a folder: two would delete or mix each other's records."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from detectron2.utils import comm
from filelock import FileLock, Timeout

from ..errors import EvaluationError
from ..file_locks import acquire_lock

LOCK_FILE = ".lock"
PATIENCE_SECONDS = 60.0
"""How long an evaluation waits for another one: processes of a command that was killed take seconds to notice."""
LOOK_SECONDS = 0.5

logger = logging.getLogger(__name__)


@contextmanager
def exclusive(folder: str) -> Iterator[None]:
    """Hold the folder of an evaluation within this context, in the first process; the others need not.

    However that process ends, the folder is free again. Raises EvaluationError if another command still holds it after
    a minute.
    """
    lock = None
    if comm.is_main_process():
        try:
            os.makedirs(folder, exist_ok=True)
            lock = _acquire(folder)
        except OSError as error:
            raise EvaluationError(f"{error.filename or folder}: cannot be written to ({error.strerror})") from error
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _acquire(folder: str) -> FileLock | None:
    path, caution = os.path.join(folder, LOCK_FILE), "see that no other evaluation runs there"
    try:
        return acquire_lock(path, caution)
    except Timeout:
        logger.info("%s: waiting for another evaluation that is running there", folder)
    try:
        return acquire_lock(path, caution, timeout=PATIENCE_SECONDS, look_seconds=LOOK_SECONDS)
    except Timeout as error:
        raise EvaluationError(
            f"{folder}: another evaluation is running there; wait until it ends, or choose another OUTPUT_DIR"
        ) from error
