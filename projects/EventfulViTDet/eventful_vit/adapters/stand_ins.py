"""A library's model with other code in the place of its blocks, for one call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from torch import nn


def with_stand_ins(model: nn.Module, path: str, forward: Callable[[int, nn.Module], Callable]) -> nn.Module:
    """A shallow copy of a model in which the blocks run other code.

    The copy shares parameters, hooks and modules with the model, but for the modules on the path to the blocks. It
    serves one call; other uses of the model meanwhile, in other threads too, do not notice.

    Args:
        path: where the container of the blocks is.
        forward: what runs in place of a block's `forward`, by the block's number and the block.
    """
    copy = container = _shallow_copy(model)
    for name in path.split("."):
        inner = _shallow_copy(container._modules[name])
        container._modules[name] = inner
        container = inner
    for number, (name, block) in enumerate(container._modules.items()):
        stand_in = _shallow_copy(block)
        stand_in.__dict__["forward"] = forward(number, block)
        container._modules[name] = stand_in
    return copy


def _shallow_copy(module: nn.Module) -> nn.Module:
    copy = object.__new__(type(module))
    copy.__dict__.update(module.__dict__, _modules=dict(module._modules))
    copy.__dict__["_compiled_call_impl"] = None  # what `module.compile()` left there calls the module itself
    return copy


def named_arguments(kind: type[nn.Module], args: tuple, kwargs: Mapping[str, Any], skip: int = 1) -> Mapping[str, Any]:
    """The arguments of a module's `forward` by name.

    Args:
        args: those by position, without the first `skip` of them.
    """
    return {**dict(zip(_parameters(kind)[skip:], args)), **kwargs} if args else kwargs


@lru_cache(maxsize=256)
def _parameters(kind: type[nn.Module]) -> tuple[str, ...]:
    return tuple(inspect.signature(kind.forward).parameters)[1:]
