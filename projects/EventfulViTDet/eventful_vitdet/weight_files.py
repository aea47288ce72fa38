"""Reading checkpoint files: the first bytes decide the format, sizes are checked first, and no code from a file is run.

Three formats: safetensors; PyTorch's own, as a zip archive or as older versions wrote it; a pickle of NumPy arrays, as
Detectron2 publishes models. What such files hold besides weights, settings above all, may be of classes that are not
to be imported: `Opaque` stands in for objects of the usual ones. Everything else is refused by name.
"""

from __future__ import annotations

import codecs
import os
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .checkpoint_globals import allowed, names_not_allowed
from .errors import DamagedCheckpointError
from .file_signatures import describe_foreign, read_head
from .pickle_claims import check_archive_claims, check_encode, check_legacy_claims, check_pickle

MAX_INFLATION = 8
"""A zip archive that would unpack to more than this many times its size is refused; PyTorch does not compress."""
MAX_SAFETENSORS_HEADER = 100_000_000
"""Bytes: the format's own limit. In text and in pickles these eight bytes are a far larger number."""
MAX_SAFETENSORS = 100_000
ZIP = b"PK\x03\x04"
LEGACY_TORCH = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
PICKLE = b"\x80"

_WHITE_SPACE = dict.fromkeys(map(ord, "\t\r\n"), " ")
_ADVICE = "save the weights by themselves, as torch.save(model.state_dict(), FILE) or as safetensors"


class Opaque:
    """Stands in for an object whose class is not imported; keeps nothing of it."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Opaque:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def opaque_mapping(*args: Any) -> OrderedDict:
    """Stands in for a mapping that is made by a call, such as a defaultdict."""
    return OrderedDict()


def encode_checked(text: str, encoding: str = "latin1") -> bytes:
    """Stands in for `_codecs.encode`, for encodings that cannot make a few bytes fill the memory."""
    check_encode(text, encoding)
    return text.encode(encoding)


def no_bytes() -> bytes:
    """How an older protocol writes the content of an array without elements."""
    return b""


STAND_INS: tuple[tuple[str, Callable], ...] = (
    ("argparse.Namespace", Opaque),
    ("types.SimpleNamespace", Opaque),
    ("pathlib.", Opaque),
    ("datetime.", Opaque),
    ("typing.", Opaque),
    ("omegaconf.", Opaque),
    ("torch.torch_version.TorchVersion", Opaque),
    *((f"builtins.{name}", Opaque) for name in ("bool", "dict", "float", "frozenset", "int", "list", "object", "str")),
    ("builtins.bytes", no_bytes),
    ("collections.defaultdict", opaque_mapping),
    # Dictionaries with a class of their own: PyTorch's reader fills only those that it knows.
    ("yacs.config.CfgNode", OrderedDict),
    ("fvcore.common.config.CfgNode", OrderedDict),
    ("detectron2.config.config.CfgNode", OrderedDict),
    ("easydict.EasyDict", OrderedDict),
    ("addict.addict.Dict", OrderedDict),
    ("mmcv.utils.config.ConfigDict", OrderedDict),
    ("mmengine.config.config.ConfigDict", OrderedDict),
    ("lightning.fabric.utilities.data.AttributeDict", OrderedDict),
    ("lightning_fabric.utilities.data.AttributeDict", OrderedDict),
    ("pytorch_lightning.utilities.parsing.AttributeDict", OrderedDict),
)
"""By the beginning of a full name, or the whole: what is made in place of objects of that class."""


def stand_in(name: str) -> Callable | None:
    """What is made in place of objects of a class; None for a class, or a function, that is refused."""
    for known, replacement in STAND_INS:
        if name == known or (known.endswith(".") and name.startswith(known)):
            return replacement
    return None


def read_checkpoint(filename: str) -> Any:
    """The content of a checkpoint file: usually a dict of tensors or arrays by name, or one with such dicts in it.

    Raises:
        DamagedCheckpointError: the file is of another kind, damaged, would unpack to far more than its size, or refers
            to code. The message says what it is and what to do.
    """
    try:
        head = read_head(filename)
    except OSError as error:
        raise DamagedCheckpointError(f"{filename} cannot be read: {error.strerror or error}") from error
    if head.startswith(ZIP):
        _check_archive(filename)
        return _call_library(filename, _read_torch_archive)
    if head.startswith(LEGACY_TORCH):
        return _call_library(filename, _read_legacy_torch)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_SAFETENSORS_HEADER:
        return _call_library(filename, _read_safetensors)
    if head.startswith(PICKLE):
        return _call_library(filename, _read_pickle)
    what = describe_foreign(head) or _describe_text(head)
    raise DamagedCheckpointError(
        f"{filename} is {what or 'neither a safetensors file, a PyTorch checkpoint nor a pickle'}"
    )


def _describe_text(head: bytes) -> str | None:
    if head.lstrip()[:1] in (b"{", b"["):
        return "JSON text, not weights (an index names the files that hold parts of them: join these into one file)"
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # whose last letter may be cut
    except UnicodeDecodeError:
        return None
    return "text, not weights" if text.translate(_WHITE_SPACE).isprintable() else None


def _call_library(filename: str, read: Callable[[str], Any]) -> Any:
    """Call a reader; whatever its libraries raise is about the file."""
    try:
        return read(filename)
    except DamagedCheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise DamagedCheckpointError(
            f"{filename} is not a file of plain tensors, or it is damaged, and was not loaded: {first_line(error)}. "
            f"If it is yours, {_ADVICE}"
        ) from error
    except MemoryError as error:
        raise DamagedCheckpointError(f"{filename} asks for more memory than there is; is it damaged?") from error
    except Exception as error:
        # Damaged and hostile files reach deep into the libraries, which then raise anything at all.
        raise DamagedCheckpointError(f"{filename} cannot be read as a checkpoint: {first_line(error)}") from error


def _read_safetensors(filename: str) -> dict[str, torch.Tensor]:
    from safetensors import safe_open

    with safe_open(filename, framework="pt") as file:
        names = list(file.keys())
        if len(names) > MAX_SAFETENSORS:  # the time per tensor grows with their number
            raise DamagedCheckpointError(f"{filename} claims {len(names):,} tensors; no model has that many")
        return {name: file.get_tensor(name) for name in names}


def _check_archive(filename: str) -> None:
    """Raise DamagedCheckpointError unless a zip archive is one of PyTorch's, and no larger than it looks."""
    try:
        with zipfile.ZipFile(filename) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DamagedCheckpointError(
            f"{filename} cannot be read as a checkpoint: it is cut short or damaged ({first_line(error)})"
        ) from error
    unpacked, packed = sum(entry.file_size for entry in entries), os.path.getsize(filename)
    if unpacked > MAX_INFLATION * packed:
        raise DamagedCheckpointError(
            f"{filename} would unpack from {_megabytes(packed)} to {_megabytes(unpacked)}, as no checkpoint does, and "
            f"was not loaded. If it is yours, {_ADVICE}"
        )
    names = [entry.filename for entry in entries]
    if len({name.lower() for name in names}) < len(names):  # which of them is read would depend on the reader
        raise DamagedCheckpointError(f"{filename} is a zip archive with several files of one name, no checkpoint")
    tails = {name.partition("/")[2] or name for name in names}
    if "constants.pkl" in tails or any(tail.startswith("code/") for tail in tails):
        raise DamagedCheckpointError(f"{filename} is a TorchScript program, which holds code: {_ADVICE}")
    if "archive_format" in tails or "serialized_exported_program.json" in names:
        raise DamagedCheckpointError(f"{filename} is a program that torch.export saved: {_ADVICE}")
    if names and all(name.endswith(".npy") for name in names):
        raise DamagedCheckpointError(f"{filename} is an archive of NumPy arrays (.npz): store them as safetensors")
    if "data.pkl" not in tails:
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        raise DamagedCheckpointError(f"{filename} is a zip archive ({shown}), no PyTorch checkpoint: unpack it first")


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.3g} MB"


def _numpy_globals() -> list:
    """What PyTorch's reader needs for NumPy arrays and numbers, under the names of NumPy 1 and 2."""
    try:
        from numpy._core import multiarray
    except ImportError:
        from numpy.core import multiarray

    functions = [
        (getattr(multiarray, name), f"numpy.{package}.multiarray.{name}")
        for name in ("_reconstruct", "scalar")
        for package in ("core", "_core")
    ]
    kinds = {type(np.dtype(code)) for code in np.typecodes["All"]}
    return [*functions, np.ndarray, np.dtype, *kinds]


def _read_torch_archive(filename: str) -> Any:
    check_archive_claims(filename)
    with allowed(_numpy_globals()):
        others = names_not_allowed(filename)
        replaced = [(stand_in(name), name) for name in others]
        refused = sorted(name for replacement, name in replaced if replacement is None)
        if refused:
            raise pickle.UnpicklingError(f"it refers to {', '.join(refused[:3])}")
        with allowed(replaced):
            return _torch_load(filename)


def _read_legacy_torch(filename: str) -> Any:
    if tarfile.is_tarfile(filename):  # for PyTorch before 2.6 another format, which could run code
        raise DamagedCheckpointError(f"{filename} is a tar archive, no PyTorch checkpoint")
    check_legacy_claims(filename)
    # Nothing lists what such a file refers to, so that the stand-ins with a full name have to do.
    replaced = [(replacement, name) for name, replacement in STAND_INS if not name.endswith(".")]
    with allowed([*_numpy_globals(), *replaced]):
        return _torch_load(filename)


def _torch_load(filename: str) -> Any:
    with open(filename, "rb") as file:  # of a name, PyTorch looks at the suffix
        return torch.load(file, map_location="cpu", weights_only=True)


def _read_pickle(filename: str) -> Any:
    with open(filename, "rb") as file:
        check_pickle(file)
        file.seek(0)
        return ArrayUnpickler(file, encoding="latin1").load()


class ArrayUnpickler(pickle.Unpickler):
    """Reads pickles of NumPy arrays and plain containers (Detectron2's .pkl files), and nothing that runs code."""

    ALLOWED = {
        ("collections", "OrderedDict"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy._core.numeric", "_frombuffer"),
        ("numpy.core.numeric", "_frombuffer"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return encode_checked
        if (module, name) in self.ALLOWED:
            return super().find_class(module, name)
        replacement = stand_in(f"{module}.{name}")
        if replacement is None:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return replacement


def first_line(error: BaseException) -> str:
    """The first sentence of an error's message, without what torch advises its own users."""
    text = str(error).rpartition("WeightsUnpickler error: ")[2]
    if text.startswith("Unsupported operand"):
        return "its pickle has instructions that PyTorch's own torch.save does not write"
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    advice = len(lines) > 1 and lines[0].startswith("Weights only load failed")
    return lines[advice].partition(". ")[0]
