"""Loading weights: formats, what does not fit, and files that would run code."""

import logging
import pickle

import numpy as np
import pytest
import torch
from eventful_vitdet.checkpoint import VideoCheckpointer
from eventful_vitdet.errors import CheckpointError
from safetensors.torch import save_file
from torch import nn


def model(width: int = 3) -> nn.Module:
    net = nn.Module()
    net.backbone = nn.Module()
    net.backbone.net = nn.Linear(2, width)
    net.heads = nn.Linear(2, 4)
    return net


def numpy_weights(net: nn.Module) -> dict:
    return {name: value.numpy() for name, value in net.state_dict().items()}


def write(path, net: nn.Module) -> str:
    if path.suffix == ".safetensors":
        save_file(net.state_dict(), path)
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps({"model": numpy_weights(net), "__author__": "somebody"}))
    else:
        torch.save({"model": net.state_dict()}, path)
    return str(path)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pkl", "w.pth"])
def test_formats(tmp_path, name):
    source, target = model(), model()
    VideoCheckpointer(target).load(write(tmp_path / name, source))
    for ours, theirs in zip(target.state_dict().values(), source.state_dict().values()):
        assert torch.equal(ours, theirs)


def test_bare_state_dict_and_parallel_prefix(tmp_path):
    source, target = model(), model()
    torch.save({f"module.{name}": value for name, value in source.state_dict().items()}, tmp_path / "w.pth")
    VideoCheckpointer(target).load(str(tmp_path / "w.pth"))
    assert torch.equal(target.heads.weight, source.heads.weight)


def test_half_precision_weights_are_cast(tmp_path):
    source, target = model().half(), model()
    VideoCheckpointer(target).load(write(tmp_path / "w.safetensors", source))
    assert target.heads.weight.dtype == torch.float32
    assert torch.equal(target.heads.weight, source.heads.weight.float())


def test_pixel_statistics_in_the_file_are_settings(tmp_path):
    weights = {**model().state_dict(), "pixel_mean": torch.zeros(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)}
    torch.save({"model": weights}, tmp_path / "w.pth")
    loaded = model()
    VideoCheckpointer(loaded).load(str(tmp_path / "w.pth"))  # they are no parameters without a place
    assert all(torch.equal(value, weights[name]) for name, value in loaded.state_dict().items())


def test_one_line_says_that_all_is_well(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="eventful_vitdet"):
        VideoCheckpointer(model()).load(write(tmp_path / "w.pth", model()))
    assert "checkpoint: 4 of 4 parameters loaded, 0 in the file unused" in caplog.text


def test_wrong_shape_and_missing_are_named(tmp_path):
    source = model(width=5)
    del source.heads.bias
    with pytest.raises(CheckpointError) as error:
        VideoCheckpointer(model()).load(write(tmp_path / "w.pth", source))
    text = str(error.value)
    assert "backbone.net.weight (file (5, 2), model (3, 2))" in text
    assert "Not in the file: heads.bias." in text and "MODEL.WEIGHTS" in text


def test_another_architecture(tmp_path):
    with pytest.raises(CheckpointError, match="holds no parameter of this model.*backbone.net"):
        VideoCheckpointer(model()).load(write(tmp_path / "w.pth", nn.Linear(2, 2)))


def test_training_may_start_from_a_backbone(tmp_path, caplog):
    source = model()
    del source.heads
    with caplog.at_level(logging.WARNING, logger="eventful_vitdet"):
        VideoCheckpointer(model(), complete=False).load(write(tmp_path / "w.pth", source))
    assert "not in the file: heads.bias, heads.weight" in caplog.text
    with pytest.raises(CheckpointError, match="backbone.net.weight"):
        VideoCheckpointer(model(), complete=False).load(write(tmp_path / "v.pth", model(width=5)))


class Harmful:
    def __reduce__(self):
        return print, ("code from a checkpoint",)


@pytest.mark.parametrize("name", ["w.pkl", "w.pth"])
def test_pickles_that_run_code_are_refused(tmp_path, name, capsys):
    content = {"model": {"weight": np.zeros(3), "extra": Harmful()}}
    path = tmp_path / name
    if name.endswith("pkl"):
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match="not a file of plain tensors") as caught:
        VideoCheckpointer(model()).load(str(path))
    assert "weights_only" not in str(caught.value)  # torch's advice is to load the file all the same
    assert "code from" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["w.pkl", "w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x80\x04\x95"])
def test_damaged_files(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        VideoCheckpointer(model()).load(str(path))


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_truncated_files(tmp_path, name):
    path = tmp_path / name
    write(path, model())
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match=name):
        VideoCheckpointer(model()).load(str(path))


@pytest.mark.parametrize("content", [[1, 2], {"model": [1]}, "text"])
def test_files_without_weights(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="holds no weights by name"):
        VideoCheckpointer(model()).load(str(tmp_path / "w.pth"))


@pytest.mark.parametrize("content", [{1: torch.zeros(2)}, {"heads.bias": "text"}, {"heads.bias": None}])
def test_entries_that_are_no_named_tensors(tmp_path, content):
    torch.save({"model": content}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="w.pth holds no weights by name: .* found"):
        VideoCheckpointer(model()).load(str(tmp_path / "w.pth"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["w.pkl", "w.pth"])
def test_weights_that_are_not_finite(tmp_path, name, value):
    source = model()
    with torch.no_grad():
        source.heads.bias[1] = value
    with pytest.raises(CheckpointError, match=f"{name}: the weights are not finite .*: heads.bias$"):
        VideoCheckpointer(model()).load(write(tmp_path / name, source))


def test_address_that_cannot_be_fetched():
    with pytest.raises(CheckpointError, match="MODEL.WEIGHTS: nowhere://w.pth cannot be fetched"):
        VideoCheckpointer(model()).load("nowhere://w.pth")


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="there is no file .*absent.pth"):
        VideoCheckpointer(model()).load(str(tmp_path / "absent.pth"))


def test_an_interrupted_save_leaves_the_older_checkpoint(tmp_path, monkeypatch):
    saver = VideoCheckpointer(model(), str(tmp_path))
    saver.save("model_1")
    older = (tmp_path / "model_1.pth").read_bytes()

    def interrupted(data, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        saver.save("model_1")
    assert (tmp_path / "model_1.pth").read_bytes() == older
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last_checkpoint", "model_1.pth"]


@pytest.mark.parametrize("error", [RuntimeError("failed writing file"), OSError(28, "No space left")])
def test_a_full_disk_leaves_the_older_checkpoint(tmp_path, monkeypatch, error):
    saver = VideoCheckpointer(model(), str(tmp_path))
    saver.save("model_1")

    def full(data, path):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match="model_2.pth cannot be written"):
        saver.save("model_2")
    assert (tmp_path / "last_checkpoint").read_text() == "model_1.pth"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last_checkpoint", "model_1.pth"]
