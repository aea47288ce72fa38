"""Other functions in the place of a class's own, for as long as a measurement takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def swapped(owner: type, name: str, value: object) -> Iterator[None]:
    """Inside, a class has another value in one of its own attributes. Raises KeyError if it does not have that."""
    original = owner.__dict__[name]  # not getattr, which would bind a classmethod
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)
