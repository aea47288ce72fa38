"""Configuration nodes, and the decorator that builds classes and functions from them."""

from __future__ import annotations

import functools
import inspect
import os
from typing import Any, Callable

import yaml
from fvcore.common.config import CfgNode as _FvcoreCfgNode


class CfgNode(_FvcoreCfgNode):
    """A tree of settings with fixed keys; yaml files inherit from others through ``_BASE_``.

    Files are read by the safe yaml loader unless ``allow_unsafe=True`` is given.
    """

    @classmethod
    def load_yaml_with_base(cls, filename: str, allow_unsafe: bool = False) -> dict[str, Any]:
        """The content of ``filename`` on top of its ``_BASE_`` files.

        Raises FileNotFoundError or ValueError naming the file that is absent or is no valid config.
        """
        if "://" not in filename and not os.path.isfile(filename):
            raise FileNotFoundError(f"config file '{filename}' does not exist")
        try:
            content = super().load_yaml_with_base(filename, allow_unsafe=allow_unsafe)
        except FileNotFoundError as error:
            if "_BASE_ of" in str(error):
                raise
            raise FileNotFoundError(f"{error} (it is the _BASE_ of '{filename}')") from error
        except yaml.YAMLError as error:
            raise ValueError(f"config file '{filename}' is not valid yaml: {error}") from error
        except TypeError:  # fvcore looks for keys in what yaml returns: None for an empty file
            content = None
        if not isinstance(content, dict):
            raise ValueError(f"config file '{filename}' holds no 'KEY: value' mapping")
        return content

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = False) -> None:
        """Merge a yaml file.

        Raises KeyError for an unknown key, and ValueError for a value of another type or a file of another
        VERSION; both name the file (and the key).
        """
        loaded = type(self)(self.load_yaml_with_base(cfg_filename, allow_unsafe=allow_unsafe))
        version = loaded.get("VERSION", self.VERSION)
        if version != self.VERSION:
            raise ValueError(f"{cfg_filename}: VERSION is {version}, but only {self.VERSION} is supported")
        try:
            self.merge_from_other_cfg(loaded)
        except (KeyError, ValueError) as error:
            raise type(error)(f"{cfg_filename}: {error.args[0]}") from error

    def merge_from_list(self, cfg_list: list[Any]) -> None:
        """Merge ``[key, value, key, value, ...]``, as given on a command line.

        Raises KeyError for an unknown key, and ValueError for a value of another type or a key without one.
        """
        if len(cfg_list) % 2:
            raise ValueError(f"config options are KEY VALUE pairs; one has no partner: {list(cfg_list)}")
        try:
            super().merge_from_list(list(cfg_list))
        except AssertionError as error:  # how yacs reports a name it does not know
            raise KeyError(str(error)) from error


def get_cfg() -> CfgNode:
    """A copy of the default config."""
    from .defaults import _C

    return _C.clone()


def configurable(init_func: Callable | None = None, *, from_config: Callable | None = None) -> Callable:
    """Let a class or function also be called with a config.

    On ``__init__`` the class needs a classmethod ``from_config(cls, cfg, ...)``; on a function the decorator
    takes ``from_config=`` (a function of ``cfg, ...``). Either returns a dict of explicit arguments. Where
    the first argument (or ``cfg=``) is a config, these are used; keywords that ``from_config`` does not take
    override or complete them. Any other call goes through untouched.
    """
    if init_func is not None:

        @functools.wraps(init_func)
        def configured_init(self, *args, **kwargs):
            translate = getattr(type(self), "from_config", None)
            if not inspect.ismethod(translate):
                raise TypeError(f"{type(self).__name__} is configurable: it needs a classmethod from_config")
            if _is_config_call(args, kwargs):
                args, kwargs = (), _explicit_arguments(translate, args, kwargs)
            init_func(self, *args, **kwargs)

        return configured_init

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def configured(*args, **kwargs):
            if _is_config_call(args, kwargs):
                args, kwargs = (), _explicit_arguments(from_config, args, kwargs)
            return function(*args, **kwargs)

        return configured

    return decorate


def _is_config_call(args: tuple, kwargs: dict) -> bool:
    return isinstance(args[0] if args else kwargs.get("cfg"), _FvcoreCfgNode)


def _explicit_arguments(translate: Callable, args: tuple, kwargs: dict) -> dict[str, Any]:
    parameters = inspect.signature(translate).parameters
    takes_all = any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters.values())
    understood = {name: value for name, value in kwargs.items() if takes_all or name in parameters}
    arguments = translate(*args, **understood)
    arguments.update({name: value for name, value in kwargs.items() if name not in understood})
    return arguments
