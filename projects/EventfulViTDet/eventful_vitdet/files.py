"""Files: written whole or not at all, removed, told apart by their content."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from .errors import FileError

TEMPORARY_PREFIX = "."
TEMPORARY_SUFFIX = ".tmp"
DIGEST_PART_BYTES = 1 << 16


def write_atomically(path: str, content: bytes | str) -> None:
    """Write `content` to a temporary neighbour of `path` and rename it, making folders as needed.

    Readers of `path` see the old file or the new one at any moment, never a part.
    Raises FileError if the folder cannot be written.
    """
    with open_atomically(path) as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)


def write_json(path: str, value: object) -> None:
    """Write strict JSON, whole or not at all."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def check_can_be_written(path: str, option: str = "") -> None:
    """Raise FileError, naming it, for a file that cannot be written; to be asked before the work that it is to hold.

    `option` is that of a command line which gave the path.
    """
    if os.path.isdir(path):
        raise FileError(f"{option} {path}: is a folder; name a file".lstrip())
    try:
        make_writable_folder(os.path.dirname(os.path.abspath(path)))
    except OSError as error:
        raise FileError(error.errno, error.strerror, path) from error


def make_writable_folder(folder: str | os.PathLike) -> None:
    """Make a folder, and make sure that files can be made in it. Raises OSError if not."""
    os.makedirs(folder, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()


@contextmanager
def open_atomically(path: str, *, durable: bool = False) -> Iterator[IO[bytes]]:
    """A binary file to write, which becomes `path` when the block ends, and vanishes if it ends by an error.

    Its permissions are those that `open` would give: of the file that it replaces, or by the umask.
    `durable` waits until the disk has the content, so that not even a power failure leaves `path` without it.
    Raises FileError, naming `path`, if it cannot be written.
    """
    folder = os.path.dirname(os.path.abspath(path))
    # Not named by tempfile, whose files only their owner can read, whatever the umask.
    temporary = os.path.join(folder, f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
    try:
        os.makedirs(folder, exist_ok=True)
        file = open(temporary, "xb")
    except OSError as error:  # it would name the temporary file, which nobody knows
        raise FileError(error.errno, error.strerror, path) from error
    try:
        with file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        with suppress(FileNotFoundError):  # there is none to replace
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    except BaseException as error:  # Ctrl-C included: the temporary file must go whatever the reason
        os.unlink(temporary)
        if isinstance(error, OSError) and error.filename in (None, temporary):
            # A full disk is reported without a name, other errors with that of the temporary file.
            raise FileError(error.errno, error.strerror, path) from error
        raise


def user_cache_folder() -> str:
    """Where this package keeps what it can make again: below XDG_CACHE_HOME, or ~/.cache. It may not exist.

    Raises FileError for a user without a home folder.
    """
    from eventful_vit.user_cache import user_cache  # imports PyTorch, for which no --help should wait

    base = user_cache()
    if base is None:
        raise FileError("this user has no home folder; XDG_CACHE_HOME can name another one for what is kept")
    return str(base / "eventful_vitdet")


def remove_temporary_files(folder: str) -> None:
    """Delete what killed processes left of their unfinished files in a folder; nobody may be writing there."""
    for name in os.listdir(folder):
        if name.startswith(TEMPORARY_PREFIX) and name.endswith(TEMPORARY_SUFFIX):
            remove_if_there(os.path.join(folder, name))


def remove_if_there(path: str) -> None:
    """Delete a file that another process may delete as well."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def remove_folder(path: str) -> None:
    """Delete a folder with all that is in it; other processes may be doing the same."""
    while os.path.isdir(path):
        try:
            shutil.rmtree(path)
        except FileNotFoundError:  # another process was faster
            continue


def file_identity(path: str) -> list:
    """[real path, bytes, time of change] of a file or folder, which JSON takes: another one has another list.

    Raises OSError if there is none.
    """
    state = os.stat(path)
    return [os.path.realpath(path), state.st_size, state.st_mtime_ns]


def file_key(path: str) -> tuple[int, int] | str:
    """What all names of one file have in common: links of both kinds, and other cases where the system ignores case."""
    try:
        state = os.stat(path)
    except OSError:  # it is not there yet
        return os.path.realpath(path)
    return state.st_dev, state.st_ino


def digest_ends(path: str) -> str:
    """A digest of a file's size and of its first and last 64 KiB, in hexadecimal. Raises OSError.

    Enough to tell videos apart without reading gigabytes.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        digest = hashlib.sha1(f"{size}:".encode() + file.read(DIGEST_PART_BYTES))
        file.seek(max(0, size - DIGEST_PART_BYTES))
        digest.update(file.read())
    return digest.hexdigest()
