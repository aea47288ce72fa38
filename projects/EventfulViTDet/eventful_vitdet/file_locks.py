"""Locks between processes, which end with the process that holds them; by filelock."""

from __future__ import annotations

import errno
import logging

from filelock import FileLock, Timeout

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)

logger = logging.getLogger(__name__)


def acquire_lock(path: str, caution: str, *, timeout: float = 0.0, look_seconds: float = 0.05) -> FileLock | None:
    """Lock a file, which is made if it is not there, against other processes.

    Args:
        path: the file; nothing but the lock is to be in it.
        caution: what the user should see to where the disk has no locks, as some network disks; the result is then
            None, after a warning.
        timeout: seconds to wait while another process holds it; below 0, without end.
        look_seconds: time between two looks.

    Raises filelock.Timeout if another process still holds it, another OSError if the file cannot be made.
    """
    lock = FileLock(path, thread_local=False)  # any thread may release it
    try:
        try:
            lock.acquire(timeout=timeout, poll_interval=look_seconds)
        except Timeout:  # also what older versions of filelock make of a disk without locks
            _check_disk(path)
            raise
    except NotImplementedError as error:  # what some versions of filelock make of ENOSYS
        logger.warning("%s: cannot be locked (%s); %s", path, error, caution)
        return None
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        logger.warning("%s: cannot be locked (%s); %s", path, error.strerror, caution)
        return None
    return lock


def _check_disk(path: str) -> None:
    """Raise the system's error where a disk has no locks."""
    if fcntl is None:
        return
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # it has, and somebody holds this one
            pass
