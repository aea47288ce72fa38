"""Configuration, and the decorator that builds objects from it."""

from __future__ import annotations

import functools
from typing import Callable

from fvcore.common.config import CfgNode

__all__ = ["CfgNode", "configurable", "get_cfg"]


def get_cfg() -> CfgNode:
    """A copy of the default config."""
    from .defaults import DEFAULTS

    return DEFAULTS.clone()


def configurable(init: Callable) -> Callable:
    """Let a class be constructed with a config too.

    Where the first argument of ``__init__`` is a config, the class's ``from_config(cfg, ...)`` translates all of
    them into a dict of keyword arguments. Any other call goes through untouched.
    """

    @functools.wraps(init)
    def configured_init(self, *args, **kwargs):
        if args and isinstance(args[0], CfgNode):
            init(self, **type(self).from_config(*args, **kwargs))
        else:
            init(self, *args, **kwargs)

    return configured_init
