"""What a PyTorch checkpoint refers to, and what PyTorch's reader makes of it: the same with every supported PyTorch.

Since PyTorch 2.6, a name in a file can be answered by any object, and a function lists the names of a file. Before, the
reader knows an object by its own name only, and nothing is listed.
"""

from __future__ import annotations

import codecs
import pickletools
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Union

import torch
from torch import serialization

Entry = Union[type, Callable, tuple[Any, str]]
"""What may be made: by its own name, or by another one."""

KNOWS_OTHER_NAMES = hasattr(serialization, "get_unsafe_globals_in_checkpoint")
"""Whether this PyTorch, 2.6 or later, does all of it by itself."""
ALLOWED_LATER: tuple[Entry, ...] = (
    (codecs.encode, "_codecs.encode"),
    (bytearray, "builtins.bytearray"),
    (set, "builtins.set"),
    (complex, "builtins.complex"),
)
"""What PyTorch 2.6 allows by itself."""


@contextmanager
def allowed(entries: Sequence[Entry]) -> Iterator[None]:
    """Within this context, `torch.load(weights_only=True)` makes these objects, too."""
    if KNOWS_OTHER_NAMES:
        with serialization.safe_globals(list(entries)):
            yield
        return
    before = list(serialization.get_safe_globals())
    serialization.add_safe_globals([_under_its_name(entry) for entry in (*ALLOWED_LATER, *entries)])
    try:
        yield
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(before)


def names_not_allowed(filename: str) -> list[str]:
    """Full names of the classes and functions in a checkpoint (a zip archive) that PyTorch's reader would not make."""
    if KNOWS_OTHER_NAMES:
        return serialization.get_unsafe_globals_in_checkpoint(filename)
    with zipfile.ZipFile(filename) as archive:
        (content,) = (archive.read(name) for name in archive.namelist() if name.partition("/")[2] == "data.pkl")
    found = {_full_name(argument) for opcode, argument, _ in pickletools.genops(content) if opcode.name == "GLOBAL"}
    reader = torch._weights_only_unpickler
    return sorted(found - {*reader._get_allowed_globals(), *reader._get_user_allowed_globals()})


def _full_name(argument: str) -> str:
    """A name in a pickle of protocol 2, as Python 3 has it."""
    module, _, name = argument.partition(" ")
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"


def _under_its_name(entry: Entry) -> type | Callable:
    """The same object, or one that works like it, under the name by which files refer to it."""
    if not isinstance(entry, tuple):
        return entry
    made, full_name = entry
    module, _, name = full_name.rpartition(".")
    if isinstance(made, type) and made not in (bytearray, complex, set):
        return type(name, (made,), {"__module__": module})

    def make(*arguments: Any) -> Any:
        return made(*arguments)

    make.__module__, make.__name__ = module, name
    return make
