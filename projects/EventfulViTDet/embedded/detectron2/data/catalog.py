"""Data sets and what is known about them, by name."""

from __future__ import annotations

from collections import UserDict
from types import SimpleNamespace
from typing import Any, Callable


class _DatasetCatalog(UserDict):
    """Maps a data set's name to a function that returns its list of dicts."""

    def register(self, name: str, func: Callable[[], list[dict]]) -> None:
        """Add a data set. Raises AssertionError if the name is taken."""
        if name in self:
            raise AssertionError(f"data set '{name}' is already registered")
        self[name] = func

    def get(self, name: str) -> list[dict]:
        """Call the registered function. Raises KeyError, listing the known names, for an unknown one."""
        if name not in self:
            known = ", ".join(sorted(self)) or "none"
            raise KeyError(f"data set '{name}' is not registered; known data sets: {known}")
        return self[name]()

    def list(self) -> list[str]:
        """All names."""
        return [*self]

    def remove(self, name: str) -> None:
        """Forget a data set; KeyError if it is not there."""
        self.pop(name)


class Metadata(SimpleNamespace):
    """Facts about one data set as attributes; each can be set once, and again only to an equal value."""

    name: str = "N/A"

    def __getattr__(self, key: str) -> Any:
        raise AttributeError(f"metadata of data set '{self.__dict__.get('name')}' has no '{key}'")

    def __setattr__(self, key: str, value: Any) -> None:
        known = self.__dict__.setdefault(key, value)
        if known != value:
            raise AssertionError(f"metadata '{key}' of data set '{self.name}' is {known!r} and cannot become {value!r}")

    def get(self, key: str, default: Any = None) -> Any:
        """An attribute, or ``default``."""
        return self.__dict__.get(key, default)

    def set(self, **values: Any) -> Metadata:
        """Set several attributes; returns the object itself."""
        for key, value in values.items():
            setattr(self, key, value)
        return self

    def as_dict(self) -> dict[str, Any]:
        """A copy of all attributes."""
        return dict(self.__dict__)


class _MetadataCatalog(UserDict):
    """Maps a data set's name to its one Metadata object."""

    def get(self, name: str) -> Metadata:
        """The metadata of ``name``, created empty at the first call."""
        return self.data.setdefault(name, Metadata(name=name))

    def list(self) -> list[str]:
        """All names."""
        return [*self]

    def remove(self, name: str) -> None:
        """Forget a data set's metadata; KeyError if there is none."""
        self.pop(name)


DatasetCatalog = _DatasetCatalog()
MetadataCatalog = _MetadataCatalog()
