"""The compiled kernels as Python sees them: loaded when a CPU tensor first needs them, called with C structures."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from .. import tape
from .build import load_library
from .thread_counts import pool_threads

INT, LONG, FLOAT, DOUBLE, POINTER = ctypes.c_int32, ctypes.c_int64, ctypes.c_float, ctypes.c_double, ctypes.c_void_p
STATE_TYPES = (torch.float32, torch.bfloat16)
"""Types of state that the kernels read and write. Inside they compute in float32."""


def structure(name: str, **fields: type) -> type[ctypes.Structure]:
    """A C structure of kernels.h; the same names, in the same order."""
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})


Call = structure("Call", kernel=POINTER, arguments=POINTER)
Replay = structure("Replay", calls=POINTER, count=LONG)
Sample = structure("Sample", data=POINTER, bytes=POINTER, count=LONG, result=POINTER)


def available() -> bool:
    """Whether there are compiled kernels; the first call may compile them."""
    return load_library() is not None


def describe_kernels() -> str:
    """What the operators run as on a CPU: a name that tells the kernels' sources, compiler and processor, or
    "PyTorch operations"."""
    library = load_library()
    return "PyTorch operations" if library is None else Path(library._name).stem


@cache
def function(name: str, result: type, *arguments: type) -> ctypes._CFuncPtr:
    """A function of the library."""
    library = load_library()
    assert library is not None
    found = getattr(library, f"eventful_{name}")
    found.argtypes, found.restype = arguments, result
    return found


def kernel(name: str) -> ctypes._CFuncPtr:
    """A function of the library that is called with the address of its arguments and a number of threads."""
    return function(name, INT, POINTER, INT)


def call(name: str, arguments: ctypes.Structure, *tensors: Tensor | None) -> None:
    """Run a kernel.

    Args:
        tensors: what the arguments point to.
    """
    run = kernel(name)
    _check(run(ctypes.addressof(arguments), pool_threads()))
    recorded = tape.current()
    if recorded is not None:
        recorded.append(ctypes.cast(run, POINTER).value, arguments, tensors)


def empty(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Memory for a kernel's result; a recording tape has its own."""
    recorded = tape.current()
    return torch.empty(shape, dtype=dtype) if recorded is None else recorded.empty(shape, dtype)


def make_replay(calls: list[tuple[int, ctypes.Structure]]) -> Callable[[], None]:
    """A function that repeats recorded calls, with the number of threads of its own time."""
    listed = (Call * len(calls))(*(Call(kernel, ctypes.addressof(arguments)) for kernel, arguments in calls))
    frame = Replay(ctypes.addressof(listed), len(calls))
    run, address = kernel("replay"), ctypes.addressof(frame)

    def replay(keep: tuple = (listed, frame, calls)) -> None:
        _check(run(address, pool_threads()))

    return replay


class Sampler:
    """Looks at some of the values of contiguous tensors, wherever they lay when it was made."""

    def __init__(self, tensors: list[Tensor]) -> None:
        count = len(tensors)
        self._data = (POINTER * count)(*(x.data_ptr() for x in tensors))
        self._sizes = (LONG * count)(*(x.numel() * x.element_size() for x in tensors))
        self._what = ctypes.addressof(self._data), ctypes.addressof(self._sizes), count

    def value(self) -> int:
        """A number that depends on them."""
        result = ctypes.c_uint64()  # of this call: threads that share a model look at the same time
        arguments = Sample(*self._what, ctypes.addressof(result))
        _check(kernel("sample")(ctypes.addressof(arguments), 1))
        return result.value


def _check(status: int) -> None:
    if status:
        raise MemoryError("a CPU kernel ran out of memory")


def readable(*tensors: Tensor | None) -> bool:
    """Whether the kernels can read these as plain float32 arrays."""
    for x in tensors:
        if x is not None and (x.dtype is not torch.float32 or not x.is_contiguous()):
            return False
    return True


def is_state(*tensors: Tensor) -> bool:
    """Whether the kernels can update these in place."""
    return all(x.dtype in STATE_TYPES and x.is_contiguous() for x in tensors)


def contiguous(x: Tensor) -> Tensor:
    """A tensor in order and without gaps: itself, or a copy, which a tape cannot make again."""
    if x.is_contiguous():
        return x
    tape.refuse("a kernel's input was not contiguous")
    return x.contiguous()


def address(x: Tensor | None) -> int | None:
    """Where a tensor's first element lies."""
    return None if x is None else x.data_ptr()
