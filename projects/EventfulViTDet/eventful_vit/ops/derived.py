"""Values that inference computes from a parameter once and keeps: packed and rounded weights, expanded tables.

They are kept beside the parameters, not in modules: copies and checkpoints of a model never contain them, models that
share parameters share them, and they are freed with their parameter.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from . import tape

Value = TypeVar("Value")


class _Entry:
    """What was derived from one parameter as it was at one time."""

    __slots__ = ("owner", "stamp", "values")

    def __init__(self, parameter: Tensor, stamp: tuple) -> None:
        key = id(parameter)
        self.owner = weakref.ref(parameter, lambda _: _entries.pop(key, None))
        self.stamp = stamp
        self.values: dict[Hashable, Any] = {}


_entries: dict[int, _Entry] = {}
MAX_KINDS = 16
"""Values kept of one parameter, such as positions for frames of so many sizes: 13 MB each for ViTDet-B at 1024 px."""
ORDINARY = frozenset((Tensor, nn.Parameter))
"""Classes of tensors whose values lie at their address."""


def is_ordinary(tensor: Tensor) -> bool:
    """Whether a tensor's values lie at its address, as those of a quantised or fake one, of a class of its own, do
    not."""
    return type(tensor) in ORDINARY


def derive(parameter: Tensor, kind: Hashable, make: Callable[[], Value]) -> Value:
    """The value that `make` computes from a parameter; kept under `kind` until the parameter changes, or `MAX_KINDS`
    others were made.

    A change is seen if the parameter is replaced, moved, or written to in a way that PyTorch tracks. After others
    (through `.data` or another framework), call `forget`.
    """
    if torch.compiler.is_compiling() or not is_ordinary(parameter):
        return make()  # in a compiled graph, or from a fake or wrapped tensor, nothing may be kept
    entry = _entries.get(id(parameter))
    now = stamp(parameter)
    if entry is None or entry.owner() is not parameter or entry.stamp != now:
        entry = _entries[id(parameter)] = _Entry(parameter, now)
    value = entry.values.get(kind)
    if value is None:
        with torch.inference_mode(False), torch.no_grad():
            value = make()
        if wait_until_made(parameter.device):
            entry.values[kind] = value
            for oldest in list(entry.values)[:-MAX_KINDS]:
                entry.values.pop(oldest, None)
    tape.hold(value)
    return value


def wait_until_made(device: torch.device) -> bool:
    """Wait for the current CUDA stream before what it makes is kept: another stream may read it at once.

    Returns:
        False, without a wait, while a graph is recorded: nothing is computed then, so only that graph may read what is
        made, and one that fails never makes it.
    """
    if device.type != "cuda":
        return True
    if torch.cuda.is_current_stream_capturing():
        return False
    torch.cuda.current_stream(device).synchronize()
    return True


def derive_or_differentiate(parameter: Tensor, kind: Hashable, make: Callable[[Tensor], Value]) -> Value:
    """What `make` computes from a parameter: kept in inference (see `derive`), differentiable in training."""
    if torch.is_grad_enabled():
        return make(parameter)
    return derive(parameter, kind, lambda: make(parameter.detach()))


def forget(parameters: Iterable[Tensor]) -> None:
    """Drop everything derived from these parameters."""
    for parameter in parameters:
        _entries.pop(id(parameter), None)


def stamp(tensor: Tensor) -> tuple:
    """A value that changes when a tensor is moved, or written to in a way that PyTorch tracks."""
    version = -1 if tensor.is_inference() else tensor._version
    address = tensor.data_ptr() if is_ordinary(tensor) else 0
    return address, version, tensor.dtype, tensor.shape
