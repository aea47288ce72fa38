"""Configuration, and the decorator that builds objects from it."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Callable

from fvcore.common.config import CfgNode

__all__ = ["CfgNode", "configurable", "get_cfg"]


def get_cfg() -> CfgNode:
    """A copy of the default config."""
    from .defaults import DEFAULTS

    return DEFAULTS.clone()


def configurable(init: Callable | None = None, *, from_config: Callable | None = None) -> Callable:
    """Let a class be constructed, or a function be called, with a config too.

    Where the first argument, or the one called ``cfg``, is a config, ``from_config(cfg, ...)`` makes a dict of keyword
    arguments; keywords that it does not take itself replace entries of that dict. Any other call goes through
    untouched. A class decorates its ``__init__`` (``@configurable``) and has ``from_config`` as a class method; a
    function names it (``@configurable(from_config=...)``).

    Example:
        >>> model = GeneralizedRCNN(cfg, pixel_mean=[0.0, 0.0, 0.0])
    """
    if init is None:
        if from_config is None:
            raise TypeError("@configurable() of a function needs from_config")
        return functools.partial(_configurable_function, from_config=from_config)

    @functools.wraps(init)
    def configured_init(self, *args, **kwargs):
        translate = getattr(type(self), "from_config", None)
        if translate is None:
            raise AttributeError(f"{type(self).__name__} uses @configurable, so it needs a class method from_config")
        if not inspect.ismethod(translate):
            raise TypeError(f"{type(self).__name__}.from_config must be a class method")
        if _has_config(args, kwargs):
            init(self, **_explicit_arguments(translate, args, kwargs))
        else:
            init(self, *args, **kwargs)

    return configured_init


def _configurable_function(function: Callable, from_config: Callable) -> Callable:
    @functools.wraps(function)
    def configured(*args, **kwargs):
        if _has_config(args, kwargs):
            return function(**_explicit_arguments(from_config, args, kwargs))
        return function(*args, **kwargs)

    configured.from_config = from_config
    return configured


def _has_config(args: tuple, kwargs: dict) -> bool:
    return isinstance(args[0] if args else kwargs.get("cfg"), CfgNode)


def _explicit_arguments(from_config: Callable, args: tuple, kwargs: dict) -> dict[str, Any]:
    parameters = inspect.signature(from_config).parameters
    if next(iter(parameters), None) != "cfg":
        raise TypeError(f"the first argument of {from_config.__qualname__} must be called cfg")
    kinds = {parameter.kind for parameter in parameters.values()}
    takes_all = inspect.Parameter.VAR_KEYWORD in kinds
    own = {name: value for name, value in kwargs.items() if takes_all or name in parameters}
    others = {name: value for name, value in kwargs.items() if name not in own}
    return {**from_config(*args, **own), **others}
