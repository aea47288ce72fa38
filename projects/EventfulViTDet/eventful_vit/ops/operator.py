"""How an operator is defined: schema, reference implementation, shapes, FLOPs; and implementations for single
devices."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from . import tape

NAMESPACE = "eventful_vit"
LIBRARY = torch.library.Library(NAMESPACE, "DEF")


@contextmanager
def _silent(logger: logging.Logger) -> Iterator[None]:
    was, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was


# Where there is no Triton, PyTorch's operation counter warns that it cannot count Triton's kernels.
with _silent(logging.getLogger("torch.utils.flop_counter")):
    from torch.utils.flop_counter import flop_registry, register_flop_formula


class Operator:
    """A step of a block, known to PyTorch as torch.ops.eventful_vit.<name>.

    It runs the implementation for the device of its tensors. An implementation returns NotImplemented for arguments
    that it cannot take (types, strides); then, and on other devices, the reference runs. While gradients are recorded
    the reference runs directly, so autograd and compilers see its parts.
    """

    def __init__(self, schema: str, reference: Callable, shapes: Callable, flops: Callable | None) -> None:
        self.name = schema.partition("(")[0]
        self.reference = reference
        functools.update_wrapper(self, reference)
        LIBRARY.define(schema)
        LIBRARY.impl(self.name, _without_autocast(reference), "CompositeExplicitAutograd")
        torch.library.register_fake(f"{NAMESPACE}::{self.name}", shapes, lib=LIBRARY)
        packet = getattr(torch.ops.eventful_vit, self.name)
        if flops is not None:
            register_flop_formula(packet, get_raw=True)(flops)
            flop_registry[packet] = flops  # PyTorch 2.4 registers the overload, and then looks for the packet
        self._overload = packet.default

    def __call__(self, *args: Any) -> Any:
        return self.reference(*args) if torch.is_grad_enabled() else self._overload(*args)

    def implement(self, device: str) -> Callable[[Callable], Callable]:
        """Decorator: an implementation for a dispatch key such as "CPU"."""

        def register(function: Callable) -> Callable:
            def run(*args: Any) -> Any:
                result = function(*args)
                if result is NotImplemented:
                    tape.refuse(f"{self.name} ran as PyTorch operations")
                    return self.reference(*args)
                return result

            LIBRARY.impl(self.name, _without_autocast(run), device)
            return function

        return register


def operator(schema: str, *, shapes: Callable, flops: Callable | None = None) -> Callable[[Callable], Operator]:
    """Decorator that makes an operator of its reference implementation.

    Args:
        schema: name, arguments and results in PyTorch's notation.
        shapes: the same signature; returns empty results of the right shapes and types.
        flops: the same signature and `out_val`, the result; returns floating point operations, two per
            multiply-accumulate.
    """
    return lambda reference: Operator(schema, reference, shapes, flops)


def _without_autocast(function: Callable) -> Callable:
    """Types of operands and results are those that the operator was given."""

    def run(first: Tensor, *rest: Any) -> Any:
        device = first.device.type
        if device not in ("cpu", "cuda") or not torch.is_autocast_enabled(device):
            return function(first, *rest)
        torch.set_autocast_enabled(device, False)
        try:
            return function(first, *rest)
        finally:
            torch.set_autocast_enabled(device, True)

    return run
