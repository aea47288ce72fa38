"""Triton's interpreter without work that it does again and again."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

NOTHING_TO_RESTORE = SimpleNamespace(restore=lambda: None)


def patch_language_once(patch: pytest.MonkeyPatch) -> None:
    """Before each launch, and before each call of one kernel function by another, the interpreter searches all of
    Triton's language for what it replaces by its own: a quarter of the kernels' time. Here, once for each module."""
    if find_spec("triton") is None:
        return
    interpreter = import_module("triton.runtime.interpreter")
    replace = getattr(interpreter, "_patch_lang", None)  # a name that Triton does not promise
    if replace is not None:
        patch.setattr(interpreter, "_patch_lang", _once(replace))


def _once(replace: Callable) -> Callable:
    """What is replaced stays replaced, as it does in older interpreters; newer ones ask for something to restore."""
    seen = set()

    def of(function: Callable) -> SimpleNamespace:
        module = id(function.__globals__)
        if module not in seen:
            replace(function)
            seen.add(module)
        return NOTHING_TO_RESTORE

    return of
