"""Other values in the place of a module's own, for as long as a measurement takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


@contextmanager
def swapped(owner: ModuleType, name: str, value: object) -> Iterator[None]:
    """Inside, a module has another value under one of its names. Raises AttributeError if it does not have that
    name."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)
