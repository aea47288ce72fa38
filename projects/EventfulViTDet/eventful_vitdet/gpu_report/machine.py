"""The machine that a report is about, and how the GPU's kernels run where there is no GPU."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..attribute_swap import swapped
from ..known_models import CHECKOUT

if TYPE_CHECKING:
    from eventful_vit.ops import Operator

NO_GPU = "no GPU"
_PROJECT = Path(__file__).resolve().parents[2]
_TESTS = CHECKOUT / "tests"
SOURCES = (
    _PROJECT / "eventful_vit", _PROJECT / "eventful_vitdet", _TESTS / "vit", _TESTS / "modeling" / "gpu_detector",
)  # fmt: skip
"""Folders of what the parts run: the transformer, whole detectors, and the suite's tests (in a checkout only)."""


def has_gpu() -> bool:
    """Whether PyTorch finds a GPU."""
    return torch.cuda.is_available()


def device() -> torch.device:
    """Where kernels run: the GPU, or the CPU in Triton's interpreter."""
    return torch.device("cuda" if has_gpu() else "cpu")


def use_interpreter_without_gpu() -> None:
    """Switch Triton's interpreter on where there is no GPU. Call it before anything imports Triton."""
    if not has_gpu():
        os.environ["TRITON_INTERPRET"] = "1"


def describe_machine() -> dict[str, str]:
    """What measurements depend on besides the code."""
    name = torch.cuda.get_device_name() if has_gpu() else NO_GPU
    return {
        "device": name,
        "torch": torch.__version__,
        "triton": _version("triton"),
        "python": platform.python_version(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def missing_packages(*names: str) -> str | None:
    """Why a part that needs these packages cannot run; None if it can."""
    absent = [name for name in names if find_spec(name) is None]
    return f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed" if absent else None


def sources_digest() -> str:
    """A digest of the code that is measured: results of other code do not count as finished."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder.parent).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def gpu_kernels() -> Mapping[Operator, Callable]:
    """The GPU's implementation of each operator; raises RuntimeError where none can run, so nothing can be checked."""
    from eventful_vit.ops import gpu

    kernels = gpu.load_kernels()
    if kernels is None:
        raise RuntimeError(f"the GPU's kernels do not run: {gpu.why_unavailable()}")
    return kernels


@contextmanager
def interpreted_operators() -> Iterator[None]:
    """Without a GPU, operators on CPU tensors run as the GPU's kernels, interpreted. With one, nothing changes."""
    if has_gpu():
        yield
        return
    from eventful_vit.ops import Operator, gpu

    kernels = gpu_kernels()

    def call(operator: Operator, *args):
        result = NotImplemented
        if operator in kernels and not torch.is_grad_enabled():
            result = kernels[operator](*args)
        return operator.reference(*args) if result is NotImplemented else result

    with swapped(Operator, "__call__", call), swapped(gpu, "serves", lambda x: True):
        yield
