"""The operators on a GPU: Triton kernels. They are imported when a GPU's tensor first needs one."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from .. import attention, gating
from ..kernel_switch import SWITCH, is_off
from ..linear import embed, linear, linear_side_by_side
from ..operator import Operator
from . import device_facts

OLDEST_TRITON = (3, 4)

logger = logging.getLogger(__name__)


@cache
def load_kernels(device: torch.device | None = None) -> dict[Operator, Callable] | None:
    """The implementation of each operator on a GPU (None: the current one).

    None where they cannot run; the log says why.
    """
    reason = why_unavailable(device)
    if reason is not None:
        logger.warning("GPU: frames run as PyTorch operations, slowly: %s", reason)
        return None
    names = ("attention", "finite", "gating", "linear", "sums")
    modules = [importlib.import_module(f".{name}", __name__) for name in names]
    return {operator: function for module in modules for operator, function in module.IMPLEMENTATIONS.items()}


def why_unavailable(device: torch.device | None = None) -> str | None:
    """Why the kernels cannot run here, on a GPU (None: the current one); None where they can."""
    if is_off():
        return f"{SWITCH} is off"
    if torch.version.hip is not None:  # Triton's compiler for AMD's GPUs refuses options and precisions of theirs
        return "the kernels are for NVIDIA's GPUs"
    if find_spec("triton") is None:
        return "Triton is not installed"
    triton = importlib.import_module("triton")
    if tuple(map(int, triton.__version__.split(".")[:2])) < OLDEST_TRITON:
        return (
            f"Triton {triton.__version__} is older than {'.'.join(map(str, OLDEST_TRITON))}, which PyTorch 2.8 brings"
        )
    if device_facts.is_too_old(device):
        return f"{torch.cuda.get_device_name(device)} is older than the kernels support (compute capability 8.0)"
    return None


def serves(x: Tensor) -> bool:
    """Whether these kernels run the operators on a tensor."""
    return x.is_cuda and load_kernels(x.device) is not None


def describe_kernels() -> str:
    """What the operators run as on a GPU."""
    return "PyTorch operations" if load_kernels() is None else "Triton kernels"


def _when_needed(operator: Operator) -> Callable:
    """The operator's implementation on the device of its first argument."""

    def run(first: Tensor, *rest: Any) -> Any:
        kernels = load_kernels(first.device)
        if kernels is None:
            return NotImplemented
        with torch.cuda.device_of(first):  # kernels start on the current one
            return kernels[operator](first, *rest)

    return run


for _operator in (
    attention.attend,
    attention.attend_windows,
    attention.divide,
    attention.update_sums,
    embed,
    gating.add,
    gating.error_norms,
    gating.finite,
    gating.gate,
    gating.normalise,
    gating.replace,
    gating.send,
    gating.store,
    linear,
    linear_side_by_side,
):
    _operator.implement("CUDA")(_when_needed(_operator))
