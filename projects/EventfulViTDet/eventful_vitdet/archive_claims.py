"""What the pickle in a PyTorch archive claims and asks for, checked before PyTorch's reader follows it.

Older PyTorch, such as 2.4, believes the number of elements that a storage claims: beyond what the archive holds, it
reads other memory as weights, or crashes. Its reader also makes byte arrays of any length.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

from torch.serialization import StorageType


class Anything(dict):
    """Takes the place of all that a pickle makes; takes what is put into it and keeps nothing."""

    def __init__(self, *args: Any) -> None:
        pass

    __hash__ = object.__hash__

    def _ignore(self, *args: Any) -> None:
        pass

    __setitem__ = __setstate__ = append = extend = add = _ignore


def check_encode(text: object, encoding: object = "latin1", *args: object) -> None:
    """How pickles write bytes. Raises UnpicklingError for encodings that make more of them, which can be repeated."""
    if not isinstance(text, str) or encoding not in ("latin1", "ascii", "utf-8"):
        raise pickle.UnpicklingError(f"it refers to _codecs.encode with the encoding {encoding!r}")


def check_bytearray(content: object = b"", *args: object) -> None:
    """Raise UnpicklingError for a byte array by its length, which can be more than there is memory."""
    if isinstance(content, int):
        raise pickle.UnpicklingError(f"it asks for {content:,} bytes")


CHECKS: dict[str, Callable[..., None]] = {"encode": check_encode, "bytearray": check_bytearray}


class ClaimsReader(pickle.Unpickler):
    """Follows a pickle without importing or making anything of it. Raises UnpicklingError for what it cannot have."""

    def __init__(self, content: bytes, record_bytes: Mapping[str, int]) -> None:
        """
        Args:
            record_bytes: size of every storage that the archive holds, by its key.
        """
        super().__init__(io.BytesIO(content))
        self.record_bytes = record_bytes

    def find_class(self, module: str, name: str) -> Any:
        if name.endswith("Storage"):
            return 1 if name == "UntypedStorage" else StorageType(name).dtype.itemsize
        check = CHECKS.get(name) if module in ("_codecs", "builtins", "__builtin__") else None
        return Anything if check is None else lambda *args: check(*args) or Anything()

    def persistent_load(self, pid: Any) -> Anything:
        _, element_bytes, key, _, elements = pid
        claimed, stored = elements * element_bytes, self.record_bytes.get(key, 0)
        if claimed != stored:
            raise pickle.UnpicklingError(f"storage {key} claims {claimed:,} bytes, but the archive has {stored:,}")
        return Anything()


def check_claims(filename: str) -> None:
    """Raise UnpicklingError unless a PyTorch archive holds what its pickle claims, and asks for no more."""
    with zipfile.ZipFile(filename) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        (pickled,) = (name for name in sizes if name.partition("/")[2] == "data.pkl")
        folder = pickled.removesuffix("data.pkl") + "data/"
        records = {name.removeprefix(folder): size for name, size in sizes.items() if name.startswith(folder)}
        ClaimsReader(archive.read(pickled), records).load()
