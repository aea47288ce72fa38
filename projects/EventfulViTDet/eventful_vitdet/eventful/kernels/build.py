"""Compiling the C++ kernels on first use, and keeping the library for the next time."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

SWITCH = "EVENTFUL_VITDET_KERNELS"
"""Environment variable: `off` never compiles or loads anything."""
SOURCES = ("attention.cpp", "frame.cpp", "gates.cpp", "products.cpp")
HEADERS = ("simd.h", "register_tile.h", "kernels.h")
FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-std=c++17", "-fPIC", "-shared", "-fopenmp")
COMPILERS = ("c++", "g++", "clang++")
COMPILE_SECONDS = 300

logger = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def load_library() -> ctypes.CDLL | None:
    """The compiled kernels; None, with the reason in the log, where there are none."""
    if os.environ.get(SWITCH, "").lower() in ("off", "0"):
        logger.info("%s is off: everything runs as PyTorch operations", SWITCH)
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
        path = build(compiler)
        library = ctypes.CDLL(str(path))
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning(
            "the CPU kernels cannot be compiled or loaded, everything runs as PyTorch operations, which are slower: %s",
            describe(error),
        )
        return None
    logger.info("compiled CPU kernels: %s", path)
    return library


def describe_kernels() -> str:
    """What attention and gates run as on a CPU: a name that tells the kernels' sources, compiler and processor, or
    "PyTorch operations"."""
    library = load_library()
    return "PyTorch operations" if library is None else Path(library._name).stem


def find_compiler() -> str | None:
    """The compiler named by $CXX, or the first of the usual ones that is installed."""
    names = (os.environ["CXX"],) if os.environ.get("CXX") else COMPILERS
    return next((path for path in map(shutil.which, names) if path), None)


def build(compiler: str) -> Path:
    """Compile, unless it was done before; returns the library's path.

    Raises:
        OSError, subprocess.SubprocessError: no place to write to, or the compiler failed.
    """
    folder = Path(__file__).parent
    target = cache_folder() / f"kernels-{fingerprint(folder, compiler)}.so"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    # Processes that start together each compile for themselves; the last rename wins.
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        library = Path(scratch) / target.name
        command = [compiler, *FLAGS, "-o", str(library), *(str(folder / name) for name in SOURCES)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=COMPILE_SECONDS)
        os.replace(library, target)
    return target


def cache_folder() -> Path:
    """Where compiled libraries are kept: $XDG_CACHE_HOME/eventful_vitdet, or that in ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "eventful_vitdet"


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
