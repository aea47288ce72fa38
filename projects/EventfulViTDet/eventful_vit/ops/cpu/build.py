"""Compiling the C++ kernels on first use, and keeping the library for the next time.

A library is only loaded if it is the file that was compiled: it and its folder belong to this user, nobody else may
write to them, and its content has the checksum that was noted. Anything else is compiled again.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from ...user_cache import user_cache
from ..fork_safe_lock import ForkSafeLock
from ..kernel_switch import SWITCH, is_off

SOURCES = ("attend.cpp", "update.cpp", "gates.cpp", "products.cpp", "frame.cpp", "pool.cpp")
HEADERS = ("attention_group.h", "attention_tile.h", "kernels.h", "pool.h", "register_tile.h", "simd.h")
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-std=c++17", "-fPIC", "-pthread")
COMPILERS = ("c++", "g++", "clang++")
COMPILE_SECONDS = 300
KERNELS = (
    "add", "attend", "attend_touched", "divide", "error_norms", "finite", "gate", "linear", "pack", "packed_size",
    "patches", "replay", "sample", "scale_channels", "send", "store", "update_sums", "vector_length",
)  # fmt: skip
"""What a library has to contain."""

logger = logging.getLogger(__name__)

_loading = ForkSafeLock()


class UnsafeCacheError(Exception):
    """A folder or file that somebody else could have written."""


@lru_cache(maxsize=1)
def load_library() -> ctypes.CDLL | None:
    """The compiled kernels; None, with the reason in the log, where there are none."""
    with _loading.lock:  # threads that begin together compile once
        return _find_library()


def _find_library() -> ctypes.CDLL | None:
    if is_off():
        logger.info("%s is off: everything runs as PyTorch operations", SWITCH)
        return None
    if not hasattr(os, "geteuid"):
        logger.warning("the CPU kernels need Linux or macOS: everything runs as PyTorch operations, which are slower")
        return None
    compiler = find_compiler()
    if compiler is None:
        logger.warning(
            "no C++ compiler (%s, or the one in $CXX): everything runs as PyTorch operations, which are "
            "slower on a CPU",
            ", ".join(COMPILERS),
        )
        return None
    try:
        library = find_or_build(compiler)
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning(
            "the CPU kernels cannot be compiled or loaded, everything runs as PyTorch operations, which are slower: %s",
            describe(error),
        )
        return None
    logger.debug("CPU kernels: %s", library._name)
    return library


def find_compiler() -> str | None:
    """The compiler named by $CXX, or the first of the usual ones that is installed."""
    names = (os.environ["CXX"],) if os.environ.get("CXX") else COMPILERS
    return next((path for path in map(shutil.which, names) if path), None)


def find_or_build(compiler: str) -> ctypes.CDLL:
    """The kept library if it is sound, or a newly compiled one.

    Raises:
        OSError, subprocess.SubprocessError: no place to write to, or the compiler failed.
    """
    name = f"kernels-{fingerprint(Path(__file__).parent, compiler)}.so"
    try:
        folder = private_folder(cache_folder())
    except UnsafeCacheError as error:
        logger.warning("%s; the CPU kernels are compiled for this process only", error)
        with tempfile.TemporaryDirectory() as scratch:
            say_that_it_takes_time()
            return ctypes.CDLL(str(build(compiler, Path(scratch) / name)))
    path = folder / name
    try:
        check_file(path)
        return ctypes.CDLL(str(path))
    except FileNotFoundError:
        pass
    except (UnsafeCacheError, OSError) as error:
        logger.warning("%s; the CPU kernels are compiled again", error)
    say_that_it_takes_time()
    return ctypes.CDLL(str(build(compiler, path)))


def say_that_it_takes_time() -> None:
    """Tell who waits for the first frame why."""
    logger.info("compiling the CPU kernels for this processor; this takes some ten seconds, only now")


def cache_folder() -> Path | None:
    """Where compiled libraries are kept; None if this user has no home."""
    base = user_cache()
    return None if base is None else base / "eventful_vit"


def private_folder(folder: Path | None) -> Path:
    """Make a folder that only this user can write to.

    Raises:
        UnsafeCacheError: others can write to it, or replace it.
        OSError: it cannot be made.
    """
    if folder is None:
        raise UnsafeCacheError("this user has no home folder to keep compiled kernels in")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = folder.resolve()
    check_owner(folder)
    for parent in folder.parents:
        status = parent.stat()
        if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            raise UnsafeCacheError(f"everybody can replace what lies in {parent}")
    return folder


def check_owner(path: Path) -> None:
    """Raise UnsafeCacheError if a file or folder is another user's, or if others may write to it."""
    status = path.lstat()
    if status.st_uid != os.geteuid():
        raise UnsafeCacheError(f"{path} belongs to another user")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UnsafeCacheError(f"{path} can be written by others")


def check_file(path: Path) -> None:
    """Raise UnsafeCacheError if a kept library is not what was compiled; FileNotFoundError if there is none."""
    note = _note(path)
    for file in (path, note):
        check_owner(file)
    if note.read_text().strip() != _checksum(path):
        raise UnsafeCacheError(f"{path} is damaged")
    # Before it is loaded: that already runs code, and what is loaded once stays.
    content = path.read_bytes()
    missing = [name for name in KERNELS if f"\0eventful_{name}\0".encode() not in content]
    if missing:
        raise UnsafeCacheError(f"{path} has no kernel {missing[0]!r}")


def build(compiler: str, target: Path) -> Path:
    """Compile the kernels into a file, and note its checksum beside it.

    Raises:
        OSError, subprocess.SubprocessError: no place to write to, or the compiler failed.
    """
    folder = Path(__file__).parent
    # Processes that start together each compile for themselves; the last rename wins.
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        objects = [str(Path(scratch) / f"{name}.o") for name in SOURCES]
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            jobs = [
                threads.submit(_run, compiler, *FLAGS, "-c", str(folder / name), "-o", target_object)
                for name, target_object in zip(SOURCES, objects)
            ]
        for job in jobs:
            job.result()
        library, note = Path(scratch) / target.name, Path(scratch) / "checksum"
        _run(compiler, "-shared", "-pthread", "-o", str(library), *objects)
        library.chmod(0o700)
        note.write_text(_checksum(library))
        note.chmod(0o600)
        os.replace(note, _note(target))
        os.replace(library, target)
    return target


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=COMPILE_SECONDS)


def _note(library: Path) -> Path:
    return library.with_suffix(".sha256")


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fingerprint(folder: Path, compiler: str) -> str:
    """Everything that the library depends on: sources, flags, compiler, and the processor that it is tuned for."""
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, text=True, timeout=60).stdout
    digest = hashlib.sha256("\0".join((*FLAGS, version, processor())).encode())
    for name in (*SOURCES, *HEADERS):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:16]


def processor() -> str:
    """The processor's instruction sets, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    wanted = ("model name", "flags", "Features", "CPU part")
    seen = dict.fromkeys(line for line in lines if line.startswith(wanted))
    return "\n".join((platform.machine(), platform.processor(), *seen))


def describe(error: Exception) -> str:
    """An error in one line; the compiler's first complaint where there is one."""
    if isinstance(error, subprocess.CalledProcessError):
        complaint = (error.stderr or "").strip().splitlines()
        return f"{error.cmd[0]} failed: {complaint[0] if complaint else f'exit status {error.returncode}'}"
    return str(error)
