from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch


class Instances:
    """The objects of one image: named fields of equal length (boxes, scores, classes, ...).

    Fields are set and read as attributes (``instances.scores``); indexing selects objects in all of them.
    """

    def __init__(self, image_size: tuple[int, int], **kwargs: Any):
        """``image_size`` is (height, width) in pixels; keywords are the first fields."""
        self._image_size = image_size
        self._fields: dict[str, Any] = {}
        for name, value in kwargs.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        return self._image_size

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self.set(name, value)

    def __getattr__(self, name: str) -> Any:
        fields = self.__dict__.get("_fields", {})  # absent while an object is being copied or unpickled
        if name not in fields:
            raise AttributeError(f"these Instances have no field {name!r}, only {sorted(fields)}")
        return fields[name]

    def set(self, name: str, value: Any) -> None:
        """Store a field; ValueError if its length differs from that of the others."""
        if self._fields and len(value) != len(self):
            raise ValueError(f"field {name!r} has length {len(value)}, the other fields have {len(self)}")
        self._fields[name] = value

    def has(self, name: str) -> bool:
        return name in self._fields

    def get(self, name: str) -> Any:
        """A field; KeyError if it is not there."""
        return self._fields[name]

    def remove(self, name: str) -> None:
        """Drop a field; KeyError if it is not there."""
        del self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        """The fields themselves, not a copy."""
        return self._fields

    def to(self, *args: Any, **kwargs: Any) -> Instances:
        """A copy whose fields have been moved wherever they offer ``to``."""
        moved = {k: v.to(*args, **kwargs) if hasattr(v, "to") else v for k, v in self._fields.items()}
        return Instances(self._image_size, **moved)

    def __getitem__(self, item) -> Instances:
        """The objects selected by an index (which gives a single one), a slice, an index vector or a bool vector."""
        if isinstance(item, int):
            length = len(self)
            if not -length <= item < length:
                raise IndexError(f"index {item} is out of range for {length} instances")
            item = slice(item % length, item % length + 1)
        return Instances(self._image_size, **{name: value[item] for name, value in self._fields.items()})

    def __iter__(self):
        # Without this, Python would iterate by index; Detectron2 does not, and code should run with both.
        raise NotImplementedError("Instances are not iterable: use instances[i] for i in range(len(instances))")

    def __len__(self) -> int:
        for value in self._fields.values():
            return len(value)
        raise NotImplementedError("Instances without any field have no length")

    @staticmethod
    def cat(instance_lists: Sequence[Instances]) -> Instances:
        """All objects of one image size in one, with the fields of the first: tensors, lists, or what has ``cat``."""
        sizes = {instances.image_size for instances in instance_lists}
        if len(sizes) != 1:
            raise ValueError(f"instances to be joined need one image size, got {sorted(sizes) or 'no instances'}")
        joined = Instances(instance_lists[0].image_size)
        for name, value in instance_lists[0].get_fields().items():
            parts = [instances.get(name) for instances in instance_lists]
            if isinstance(value, torch.Tensor):
                joined.set(name, torch.cat(parts))
            elif isinstance(value, list):
                joined.set(name, list(itertools.chain(*parts)))
            else:
                joined.set(name, type(value).cat(parts))
        return joined

    def __repr__(self) -> str:
        return f"Instances(image_size={self._image_size}, fields={self._fields})"
