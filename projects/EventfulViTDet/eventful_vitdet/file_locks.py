"""Locks on open files, which end with the process that holds them."""

from __future__ import annotations

import fcntl
import logging
from typing import IO

logger = logging.getLogger(__name__)


def try_lock(file: IO, name: str, caution: str) -> bool:
    """Lock an open file against other processes, without waiting; False if another one has it.

    Some network disks have no locks. There, a warning names `name` and says `caution`, and it is as if it were locked.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        logger.warning("%s: cannot be locked (%s); %s", name, error.strerror, caution)
    return True
