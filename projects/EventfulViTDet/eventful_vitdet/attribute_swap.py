"""Other values in the place of a module's or a class's own, for as long as a measurement takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def swapped(owner: object, name: str, value: object) -> Iterator[None]:
    """Inside, a module or class has another value under one of its names. Raises AttributeError if it does not have
    that name."""
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)
