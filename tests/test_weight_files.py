"""Reading checkpoint files: formats by content, what is no checkpoint, files that are odd, damaged or hostile."""

from __future__ import annotations

import argparse
import codecs
import collections
import datetime
import io
import pathlib
import pickle
import re
import sys
import tarfile
import types
import zipfile

import numpy as np
import pytest
import torch
from eventful_vitdet import weight_files
from eventful_vitdet.checkpoint_globals import KNOWS_OTHER_NAMES
from eventful_vitdet.errors import CheckpointError, DamagedCheckpointError
from eventful_vitdet.weight_files import LEGACY_TORCH, read_checkpoint
from eventful_vitdet.weight_sets import choose_set
from safetensors.torch import save, save_file

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.tensor([1.0, -2.0])}


def as_arrays() -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in WEIGHTS.items()}


def write_zip(path: pathlib.Path, content: object) -> None:
    torch.save(content, path)


def write_legacy(path: pathlib.Path, content: object) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def write_pickle(path: pathlib.Path, content: object, protocol: int = pickle.DEFAULT_PROTOCOL) -> None:
    path.write_bytes(pickle.dumps(content, protocol))


def read_weights(path: pathlib.Path, wanted: str = "") -> dict[str, torch.Tensor]:
    return choose_set(str(path), read_checkpoint(str(path)), wanted)[1]


def check_weights_are_those(path: pathlib.Path) -> None:
    found = read_weights(path)
    assert found.keys() == WEIGHTS.keys() and all(torch.equal(found[name], WEIGHTS[name]) for name in WEIGHTS)


@pytest.mark.parametrize("suffix", [".pth", ".pkl", ".safetensors", ".bin", ".pyth", ""])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "pickle 2", "pickle 4", "pickle 5"])
def test_the_content_decides_and_not_the_suffix(tmp_path, kind, suffix):
    path = tmp_path / f"w{suffix}"
    if kind == "safetensors":
        save_file(WEIGHTS, path)
    elif kind.startswith("pickle"):
        write_pickle(path, {"model": as_arrays(), "__author__": "somebody"}, int(kind[-1]))
    else:
        (write_zip if kind == "zip" else write_legacy)(path, {"model": WEIGHTS})
    check_weights_are_those(path)


def named_zip(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, b"x" * 100)
    return content.getvalue()


def tar_of_nothing() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("w.pth"))
    return content.getvalue()


def npy() -> bytes:
    content = io.BytesIO()
    np.save(content, np.zeros(3))
    return content.getvalue()


OTHER_FILES = {
    "empty": (b"", "an empty file"),
    "zero bytes": (bytes(4096), "begins with nothing but zero bytes: the download or copy was interrupted"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 44\n", "Git LFS pointer.*lfs pull"),
    "page": (b"<!DOCTYPE html><html><head><title>Virus scan warning</title></head></html>", "an HTML page"),
    "page with white space": (b"\xef\xbb\xbf\n  <HTML lang='en'>", "an HTML page"),
    "server's answer": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML document"),
    "gzip": (b"\x1f\x8b\x08\x00\x00\x00", "a gzip file: unpack it first"),
    "tar": (tar_of_nothing(), "a tar archive: unpack it first"),
    "zstd": (b"\x28\xb5\x2f\xfd\x00\x00", "a zstd file: unpack it first"),
    "other zip": (named_zip("weights/a.pth", "weights/readme.md"), "a zip archive .weights/a.pth.*unpack it first"),
    "arrays": (named_zip("a.weight.npy", "a.bias.npy"), r"an archive of NumPy arrays \(.npz\)"),
    "program": (named_zip("m/data.pkl", "m/constants.pkl", "m/code/a.py"), "a TorchScript program"),
    "exported": (named_zip("m/archive_format", "m/models/model.json"), "a program that torch.export saved"),
    "array": (npy(), "a single NumPy array"),
    "keras": (b"\x89HDF\r\n\x1a\n\x00\x00", "an HDF5 file"),
    "index": (b'{"metadata": {}, "weight_map": {"a.weight": "model-1.safetensors"}}', "JSON text.*join these into one"),
    "index that looks like safetensors": (b'{"abcd":{"weight_map": {}}}', "JSON text, not weights"),
    "settings": (b"MODEL:\n  WEIGHTS: x\n", "text, not weights"),
    "noise": (bytes(range(200, 256)) * 20, "neither a safetensors file, a PyTorch checkpoint nor a pickle"),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".pkl"])
@pytest.mark.parametrize("name", OTHER_FILES)
def test_what_is_no_checkpoint_is_said_to_be_what_it_is(tmp_path, name, suffix):
    content, message = OTHER_FILES[name]
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(DamagedCheckpointError, match=f"^{path} is .*{message}") as caught:
        read_checkpoint(str(path))
    assert "\n" not in str(caught.value)


def extras() -> dict[str, object]:
    default = collections.defaultdict(list)
    default["seen"].append(3)
    return {
        "epoch": np.int64(7),
        "best": np.float64(0.5),
        "float": np.float32(1.5),
        "flag": np.bool_(True),
        "args": argparse.Namespace(lr=0.1, output=pathlib.PurePosixPath("out"), names=["a"], inner={"b": (1, 2)}),
        "history": np.arange(5.0),
        "table": np.arange(6).reshape(2, 3),
        "counts": np.array(3),
        "default": default,
        "counter": collections.Counter("aab"),
        "time": datetime.datetime(2026, 1, 2),
        "set": {1, 2},
        "complex": 1 + 2j,
        "nothing": None,
    }


@pytest.mark.parametrize("write", [write_zip, write_legacy, write_pickle])
def test_what_lies_beside_the_weights_does_not_keep_them_from_loading(tmp_path, write):
    content = {"model": as_arrays() if write is write_pickle else WEIGHTS, **extras()}
    if write is not write_zip:  # nothing says beforehand what such files refer to
        for name in ("set", "complex", "counter") if write is write_pickle else ("time", "args"):
            del content[name]
    write(tmp_path / "w.pth", content)
    check_weights_are_those(tmp_path / "w.pth")
    found = read_checkpoint(str(tmp_path / "w.pth"))
    assert (found["epoch"], found["best"], found["float"], bool(found["flag"])) == (7, 0.5, 1.5, True)
    assert found["history"].tolist() == [0, 1, 2, 3, 4] and found["table"].shape == (2, 3)


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_weights_that_are_arrays(tmp_path, write):
    write(tmp_path / "w.pth", {"state_dict": as_arrays()})
    check_weights_are_those(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("module", "name", "base"),
    [
        ("yacs.config", "CfgNode", dict),
        ("mmengine.config.config", "ConfigDict", dict),
        ("easydict", "EasyDict", dict),
        ("omegaconf.dictconfig", "DictConfig", object),
    ],
)
@pytest.mark.parametrize("write", [write_zip, write_pickle])
def test_settings_of_a_class_that_is_not_imported(tmp_path, monkeypatch, write, module, name, base):
    """The class is gone when the file is read: nothing of it is run or even imported."""
    settings = type(name, (base,), {"__module__": module, "__setstate__": lambda *_: pytest.fail("it was run")})
    value = settings()
    value.__dict__.update(frozen=False, content={"LR": 0.1})
    if base is dict:
        value.update(LR=0.1, A={"B": [1]})
    parts = module.split(".")
    with monkeypatch.context() as patch:
        for i in range(len(parts)):
            patch.setitem(sys.modules, ".".join(parts[: i + 1]), types.ModuleType(parts[i]))
        setattr(sys.modules[module], name, settings)
        write(tmp_path / "w.pth", {"model": as_arrays(), "cfg": value})
    check_weights_are_those(tmp_path / "w.pth")


class Harmful:
    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def print_it(text: str) -> None:
    print(text)


@pytest.mark.parametrize("write", [write_zip, write_legacy, write_pickle])
@pytest.mark.parametrize(
    ("function", "name"),
    [(print, "print"), (eval, "eval"), (getattr, "getattr"), (__import__, "__import__"), (print_it, "print_it")],
)
def test_code_is_refused_by_name(tmp_path, capsys, write, function, name):
    content = {"model": as_arrays() if write is write_pickle else WEIGHTS, "args": Harmful(function, "'ran'")}
    write(tmp_path / "w.pth", content)
    with pytest.raises(DamagedCheckpointError, match=f"w.pth .*not loaded: .*{name}.* save the weights by them"):
        read_checkpoint(str(tmp_path / "w.pth"))
    assert "ran" not in capsys.readouterr().out


def test_a_pickle_of_another_protocol_in_a_zip_is_no_riddle(tmp_path):
    torch.save({"model": WEIGHTS}, tmp_path / "w.pth", pickle_protocol=4)
    with pytest.raises(DamagedCheckpointError, match="instructions that PyTorch's own torch.save does not write"):
        read_checkpoint(str(tmp_path / "w.pth"))


def test_a_zip_bomb_is_refused_before_it_is_read(tmp_path, monkeypatch):
    torch.save({"model": {"a": torch.zeros(4_000_000)}}, tmp_path / "stored.pth")
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(tmp_path / "stored.pth") as stored, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for name in stored.namelist():
            bomb.writestr(name, stored.read(name))
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(DamagedCheckpointError, match=r"bomb.pth would unpack from 0.0\d+ MB to 16 MB"):
        read_checkpoint(str(path))


def claim(path: pathlib.Path, elements: bytes) -> None:
    """Let the storage of six numbers in a PyTorch archive claim another length."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, re.sub(rb"(cpuq.)K\x06", lambda found: found[1] + elements, content))


@pytest.mark.parametrize("claimed", [b"K\x07", b"J\x00\xca\x9a\x3b"])
def test_a_storage_that_claims_more_than_the_archive_has(tmp_path, claimed):
    """Before PyTorch checked it, other memory was read as weights, or the process crashed."""
    torch.save({"model": {"a": torch.arange(6.0)}}, tmp_path / "w.pth")
    claim(tmp_path / "w.pth", claimed)
    with pytest.raises(DamagedCheckpointError, match="storage 0 claims [0-9,]+ bytes, but the archive has 24"):
        read_checkpoint(str(tmp_path / "w.pth"))


@pytest.mark.parametrize("write", [write_zip, write_legacy, write_pickle])
def test_a_pickle_that_makes_much_of_few_bytes(tmp_path, write):
    text = Harmful(codecs.encode, "a", "latin1")
    for _ in range(40):  # each doubles the length
        text = Harmful(codecs.encode, text, "hex_codec")
    write(tmp_path / "w.pth", {"model": as_arrays(), "args": text})
    with pytest.raises(DamagedCheckpointError, match="_codecs.encode with the encoding 'hex_codec'"):
        read_checkpoint(str(tmp_path / "w.pth"))


def test_a_byte_array_by_its_length(tmp_path):
    torch.save({"model": WEIGHTS, "args": Harmful(bytearray, 10**10)}, tmp_path / "w.pth")
    with pytest.raises(DamagedCheckpointError, match="asks for 10,000,000,000 bytes"):
        read_checkpoint(str(tmp_path / "w.pth"))
    torch.save({"model": WEIGHTS, "args": bytearray(b"abc")}, tmp_path / "w.pth")
    check_weights_are_those(tmp_path / "w.pth")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_entries_of_one_name_are_refused(tmp_path):
    torch.save({"model": WEIGHTS}, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth", "a") as archive:
        archive.writestr(archive.namelist()[0], pickle.dumps(Harmful(print, "ran"), 2))
    with pytest.raises(DamagedCheckpointError, match="several files of one name"):
        read_checkpoint(str(tmp_path / "w.pth"))


def test_a_tar_archive_that_looks_like_the_older_format(tmp_path):
    """Before 2.6, PyTorch reads such archives by a reader that can be made to run code."""
    with tarfile.open(tmp_path / "w.pth", "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo((LEGACY_TORCH + b"/a").decode("utf-8", "surrogateescape")), io.BytesIO())
    assert (tmp_path / "w.pth").read_bytes().startswith(LEGACY_TORCH)
    with pytest.raises(DamagedCheckpointError, match="w.pth is a tar archive, no PyTorch checkpoint"):
        read_checkpoint(str(tmp_path / "w.pth"))


def test_a_pickle_that_numbers_objects_beyond_memory(tmp_path):
    # "Store the dict under number 2^31 - 1": Python would make a list of that length.
    (tmp_path / "w.pkl").write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    with pytest.raises(DamagedCheckpointError, match="w.pkl cannot be read .* has the number 2147483647"):
        read_checkpoint(str(tmp_path / "w.pkl"))


def test_a_pickle_that_claims_more_than_it_has(tmp_path):
    (tmp_path / "w.pkl").write_bytes(b"\x80\x04\x8e" + (1 << 50).to_bytes(8, "little") + b"abc.")
    with pytest.raises(DamagedCheckpointError, match="w.pkl"):
        read_checkpoint(str(tmp_path / "w.pkl"))


@pytest.mark.parametrize("write", [write_zip, write_pickle])
def test_an_array_that_claims_more_than_the_file_has(tmp_path, write):
    write(tmp_path / "w.pth", {"model": {"a": Harmful(np.ndarray, (10**9,))}})
    with pytest.raises(DamagedCheckpointError, match="w.pth .*a NumPy array by its shape, without saying what"):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("write", [write_zip, write_legacy, write_pickle])
def test_a_scalar_that_claims_gigabytes(tmp_path, write):
    """NumPy makes zeros of it, as long as its type says."""
    make_scalar = np.float64(1).__reduce__()[0]
    write(tmp_path / "w.pth", {"model": as_arrays(), "a": Harmful(make_scalar, np.dtype("S2000000000"))})
    with pytest.raises(DamagedCheckpointError, match="asks for a NumPy scalar without saying which"):
        read_checkpoint(str(tmp_path / "w.pth"))


def test_a_storage_of_another_kind_of_size(tmp_path):
    """Text times a number would be long text."""
    pid = b"(X\x07\x00\x00\x00storageJ\xff\xff\xff\x7fX\x01\x00\x00\x000X\x03\x00\x00\x00cpuX\x02\x00\x00\x00xxtQ"
    write_raw(tmp_path / "w.pth", "zip", b"\x80\x02}K\x01" + pid + b"s.")
    with pytest.raises(DamagedCheckpointError, match="storage '0' has no size"):
        read_checkpoint(str(tmp_path / "w.pth"))


def write_raw(path: pathlib.Path, kind: str, content: bytes) -> None:
    """A file of the given format whose pickle, otherwise that of the weights, is `content`."""
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("w/data.pkl", content)
            archive.writestr("w/version", "3\n")
        return
    whole = io.BytesIO()
    torch.save({}, whole, _use_new_zipfile_serialization=False)
    whole.seek(0)
    for _ in range(3 if kind == "legacy" else 0):
        pickle.load(whole)
    keys = pickle.dumps([], 2) if kind == "legacy" else b""
    path.write_bytes(whole.getvalue()[: whole.tell()] + content + keys)


NESTED = {  # to hash them, Python recurses without a limit, or takes years
    "deep": b")" + b"\x85" * 300_000,
    "wide": b")q\x00" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60)),
}


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("use", [b"}%bK\x01s.", b"ccollections\nOrderedDict\n]%bK\x01\x86a\x85R."])
def test_tuples_within_tuples_as_keys(tmp_path, kind, name, use):
    write_raw(tmp_path / "w.pth", kind, b"\x80\x02" + use % NESTED[name])
    with pytest.raises(DamagedCheckpointError, match="w.pth .*tuples within tuples that are too deep or too many"):
        read_checkpoint(str(tmp_path / "w.pth"))


@pytest.mark.parametrize("write", [write_zip, write_legacy, write_pickle])
def test_usual_tuples_are_read(tmp_path, write):
    shapes = tuple((f"a.{i}", (i, (3, 4))) for i in range(2_000))
    write(tmp_path / "w.pth", {"model": as_arrays(), ("a", ("b", 1)): shapes})
    assert read_checkpoint(str(tmp_path / "w.pth"))["a", ("b", 1)] == shapes
    check_weights_are_those(tmp_path / "w.pth")


def test_more_tensors_than_any_model_has(tmp_path):
    entry = b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    header = b"{" + b",".join(entry % i for i in range(weight_files.MAX_SAFETENSORS + 1)) + b"}"
    (tmp_path / "w").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(DamagedCheckpointError, match="w claims 100,001 tensors; no model has that many"):
        read_checkpoint(str(tmp_path / "w"))


ODD_ARRAYS = {
    "objects": np.array([{}, None], dtype=object),
    "text": np.array(["a", "b"]),
    "bytes": np.array([b"a"]),
    "times": np.array(["2026-01-01"], dtype="datetime64[D]"),
    "complex": np.zeros(3, np.complex64),
    "records": np.zeros(3, [("x", "f4"), ("y", "i4")]),
    "long doubles": np.zeros(3, np.longdouble),
    "unsigned": np.zeros(3, np.uint32),
    "void": np.zeros(3, "V4"),
}


@pytest.mark.parametrize("write", [write_zip, write_legacy, write_pickle])
@pytest.mark.parametrize("name", ODD_ARRAYS)
def test_odd_arrays_are_refused_by_name(tmp_path, write, name):
    write(tmp_path / "w.pth", {"model": {"a": np.zeros(2, np.float32), "b.odd": ODD_ARRAYS[name]}})
    with pytest.raises(
        DamagedCheckpointError, match="w.pth.*(b.odd is an array of the type|cannot be read|not loaded)"
    ):
        read_weights(tmp_path / "w.pth")


@pytest.mark.parametrize("write", [write_zip, write_pickle])
def test_arrays_of_other_layouts_are_read(tmp_path, write):
    swapped = np.arange(6, dtype=">f4").reshape(2, 3)
    arrays = {"swapped": swapped, "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "zero": np.array(3.0)}
    arrays |= {"none": np.zeros((0, 4), np.float32), "half": np.ones(2, np.float16), "flags": np.array([True, False])}
    write(tmp_path / "w.pth", {"model": arrays})
    found = read_weights(tmp_path / "w.pth")
    assert all(np.array_equal(found[name].numpy(), array) for name, array in arrays.items())
    assert found["zero"].shape == () and found["none"].shape == (0, 4)


def odd_tensors() -> dict[str, torch.Tensor]:
    return {
        "sparse": torch.eye(3).to_sparse(),
        "rows": torch.eye(3).to_sparse_csr(),
        "complex": torch.zeros(3, dtype=torch.complex64),
        "eighth": torch.zeros(3).to(torch.float8_e4m3fn),
        "meta": torch.empty(10**12, device="meta"),
        "expanded": torch.zeros(1, 1).expand(10**6, 10**6),
        "unsigned": torch.zeros(3, dtype=torch.uint16),
    }


@pytest.mark.parametrize("write", [write_zip, write_legacy])
@pytest.mark.parametrize("name", odd_tensors())
def test_odd_tensors_are_refused_by_name(tmp_path, write, name):
    if name == "unsigned" and not KNOWS_OTHER_NAMES:
        pytest.skip("needs torch 2.6 or later: older ones cannot write the type uint16")
    write(tmp_path / "w.pth", {"model": {**WEIGHTS, "b.odd": odd_tensors()[name]}})
    with pytest.raises(DamagedCheckpointError) as caught:
        read_weights(tmp_path / "w.pth")
    # PyTorch itself cannot read some types from files in its older format.
    assert "w.pth: b.odd is a " in str(caught.value) or (
        write is write_legacy and "w.pth cannot be" in str(caught.value)
    )


def test_odd_tensors_of_safetensors(tmp_path):
    save_file({**WEIGHTS, "b.odd": torch.zeros(3).to(torch.float8_e5m2)}, tmp_path / "w.safetensors")
    with pytest.raises(DamagedCheckpointError, match="b.odd is a tensor of the type torch.float8_e5m2"):
        read_weights(tmp_path / "w.safetensors")


def test_views_and_parameters_are_read(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    views = {"column": whole[:, 1], "turned": whole.t(), "same": whole, "parameter": torch.nn.Parameter(whole * 2)}
    torch.save({"model": views}, tmp_path / "w.pth")
    found = read_weights(tmp_path / "w.pth")
    assert all(torch.equal(found[name], value) for name, value in views.items())
    assert not found["parameter"].requires_grad


def test_many_names_of_few_numbers_are_refused(tmp_path):
    shared = torch.zeros(1_000_000)
    torch.save({"model": {f"a.{i}": shared for i in range(20)}}, tmp_path / "w.pth")
    with pytest.raises(DamagedCheckpointError, match="claims arrays of 80,000,000 bytes"):
        read_weights(tmp_path / "w.pth")


def test_arrays_of_many_dimensions_are_refused(tmp_path):
    save_file({"a": torch.zeros([1] * 20)}, tmp_path / "w.safetensors")
    with pytest.raises(DamagedCheckpointError, match="a is an array of 20 dimensions"):
        read_weights(tmp_path / "w.safetensors")


def test_a_mapping_within_itself(tmp_path):
    content: dict = {}
    content["a"] = content
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(DamagedCheckpointError, match=r"holds no weights by name: .*'a': dict \(in it"):
        read_weights(tmp_path / "w.pth")


def contents() -> dict[str, bytes]:
    """Small files of every format."""
    zipped, legacy = io.BytesIO(), io.BytesIO()
    torch.save({"model": WEIGHTS, "args": argparse.Namespace(lr=1.0), "history": np.arange(3.0)}, zipped)
    torch.save({"model": WEIGHTS}, legacy, _use_new_zipfile_serialization=False)
    return {
        "zip": zipped.getvalue(),
        "legacy": legacy.getvalue(),
        "pickle": pickle.dumps({"model": as_arrays(), "__author__": "somebody"}, 2),
        "safetensors": save(WEIGHTS),
    }


@pytest.mark.parametrize("kind", contents())
def test_damage_is_an_error_that_names_the_file_or_does_no_harm(tmp_path, kind):
    rng = np.random.default_rng(4)
    whole, path = contents()[kind], tmp_path / "w.pth"
    refused = 0
    for case in range(150):
        damaged = bytearray(whole)
        if case % 3 == 0:
            damaged = damaged[: rng.integers(len(whole))]
        for position in rng.integers(len(damaged), size=1 + case % 4) if damaged else ():
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_weights(path)
        except CheckpointError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
    assert refused >= 50


def test_a_file_that_cannot_be_opened(tmp_path):
    with pytest.raises(DamagedCheckpointError, match="cannot be read: Is a directory"):
        read_checkpoint(str(tmp_path))


def test_stand_ins_are_given_for_whole_names_only():
    assert weight_files.stand_in("argparse.Namespace") and weight_files.stand_in("pathlib.PosixPath")
    assert not weight_files.stand_in("argparse.Namespaces") and not weight_files.stand_in("pathlibs.PosixPath")
    assert not any(map(weight_files.stand_in, ("os.system", "builtins.eval", "builtins.getattr", "pathlib", "typing")))
