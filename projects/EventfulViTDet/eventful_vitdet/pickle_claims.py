"""What the pickle in a checkpoint claims and asks for, checked before another reader follows it.

Pickles of a few bytes can ask for more memory than there is, or for tuples in tuples that take hours to hash or crash
Python. Older PyTorch, such as 2.4, also believes the number of elements that a storage claims: beyond what the archive
holds, it reads other memory as weights, or crashes.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any

from torch.serialization import StorageType

MAX_TUPLE = 1 << 22
"""The largest `SizedTuple.size`: tuples within tuples are no deeper than 22 levels."""
LEGACY_PICKLES = 5
"""With how many pickles a file begins that PyTorch before 1.6 wrote; the fourth has the tensors."""


class Anything(dict):
    """Takes the place of all that a pickle makes; takes what is put into it and keeps nothing."""

    def __init__(self, *args: Any) -> None:
        pass

    __hash__ = object.__hash__

    def _ignore(self, *args: Any) -> None:
        pass

    __setitem__ = __setstate__ = append = extend = add = _ignore


class SizedTuple(tuple):
    """A tuple that is not too deep, nor too long when written out, to be the key of a dictionary.

    To hash a tuple, Python follows all tuples in it, each as often as it occurs, by a recursion without a limit.
    """

    def __new__(cls, items: Iterable[Any]) -> SizedTuple:
        made = super().__new__(cls, items)
        made.size = len(made) + 2 * sum(item.size for item in made if isinstance(item, SizedTuple))
        if made.size > MAX_TUPLE:
            raise pickle.UnpicklingError("it has tuples within tuples that are too deep or too many")
        return made


def check_encode(text: object, encoding: object = "latin1", *args: object) -> None:
    """How pickles write bytes. Raises UnpicklingError for encodings that make more of them, which can be repeated."""
    if not isinstance(text, str) or encoding not in ("latin1", "ascii", "utf-8"):
        raise pickle.UnpicklingError(f"it refers to _codecs.encode with the encoding {encoding!r}")


def check_bytearray(content: object = b"", *args: object) -> None:
    """Raise UnpicklingError for a byte array by its length, which can be more than there is memory."""
    if isinstance(content, int):
        raise pickle.UnpicklingError(f"it asks for {content:,} bytes")


def check_scalar(kind: object, *content: object) -> None:
    """Raise UnpicklingError for a NumPy scalar without content: zeros, of any length that its type claims."""
    if not content:
        raise pickle.UnpicklingError("it asks for a NumPy scalar without saying which")


def check_array(kind: object, shape: object = (), *args: object) -> None:
    """Raise UnpicklingError for an array by its shape: NumPy writes empty ones, and then what they hold."""
    if shape != (0,):
        raise pickle.UnpicklingError("it asks for a NumPy array by its shape, without saying what is in it")


CHECKS: dict[str, Callable[..., None]] = {
    "encode": check_encode,
    "bytearray": check_bytearray,
    "scalar": check_scalar,
    "_reconstruct": check_array,
    "ndarray": check_array,
}
CHECKED_PACKAGES = ("_codecs", "builtins", "__builtin__", "numpy")


class ClaimsReader(pickle._Unpickler):
    """Follows a pickle without importing or making anything of it. Raises UnpicklingError for what it cannot have.

    It is Python's own reader in Python, whose handling of single instructions can be replaced.
    """

    dispatch = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: IO[bytes], record_bytes: Mapping[str, int] | None = None) -> None:
        """
        Args:
            record_bytes: size of every storage that an archive holds, by its key; None where PyTorch checks it.
        """
        super().__init__(file, encoding="latin1")
        self.record_bytes = record_bytes

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return 1 if name == "UntypedStorage" else StorageType(name).dtype.itemsize
        check = CHECKS.get(name) if module.partition(".")[0] in CHECKED_PACKAGES else None
        return Anything if check is None else lambda *args: check(*args) or Anything()

    def persistent_load(self, pid: Any) -> Anything:
        _, element_bytes, key, _, elements, *_ = pid
        if not (isinstance(element_bytes, int) and isinstance(elements, int)):
            raise pickle.UnpicklingError(f"storage {key!r} has no size")
        if self.record_bytes is not None:
            claimed, stored = elements * element_bytes, self.record_bytes.get(key, 0)
            if claimed != stored:
                raise pickle.UnpicklingError(f"storage {key} claims {claimed:,} bytes, but the archive has {stored:,}")
        return Anything()

    def load_tuple(self) -> None:
        items = self.pop_mark()  # first, as it changes what `append` is
        self.append(SizedTuple(items))

    def load_short_tuple(self, length: int) -> None:
        self.stack[-length:] = [SizedTuple(self.stack[-length:])]

    def load_bytearray8(self) -> None:
        self.load_binbytes8()  # Python's own would make as many zeros as it claims

    dispatch[pickle.TUPLE[0]] = load_tuple
    dispatch[pickle.TUPLE1[0]] = lambda self: self.load_short_tuple(1)
    dispatch[pickle.TUPLE2[0]] = lambda self: self.load_short_tuple(2)
    dispatch[pickle.TUPLE3[0]] = lambda self: self.load_short_tuple(3)
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


def check_pickle(file: IO[bytes], record_bytes: Mapping[str, int] | None = None) -> None:
    """Raise UnpicklingError or ValueError for a pickle that asks for what no checkpoint has, or that is damaged."""
    start, reader = file.tell(), ClaimsReader(file, record_bytes)
    try:
        reader.load()
    except (EOFError, LookupError) as error:
        raise ValueError("its pickle is cut short or damaged") from error
    if (number := max(reader.memo, default=0)) > file.tell() - start:  # readers in C make a list of that length
        raise ValueError(f"an object of its pickle has the number {number}")


def check_archive_claims(filename: str) -> None:
    """Raise UnpicklingError unless a PyTorch archive holds what its pickle claims, and asks for no more."""
    with zipfile.ZipFile(filename) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        (pickled,) = (name for name in sizes if name.partition("/")[2] == "data.pkl")
        folder = pickled.removesuffix("data.pkl") + "data/"
        records = {name.removeprefix(folder): size for name, size in sizes.items() if name.startswith(folder)}
        check_pickle(io.BytesIO(archive.read(pickled)), records)


def check_legacy_claims(filename: str) -> None:
    """Raise UnpicklingError for a file in PyTorch's older format whose pickles ask for what no checkpoint has."""
    with open(filename, "rb") as file:
        for _ in range(LEGACY_PICKLES):
            check_pickle(file)
