"""Loading weights: formats, what does not fit, and files that would run code."""

import logging
import pickle

import numpy as np
import pytest
import torch
from eventful_vitdet.checkpoint import VideoCheckpointer
from eventful_vitdet.errors import CheckpointError
from iopath.common.file_io import HTTPURLHandler
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
    assert text.endswith(". Not in the file: heads.bias") and "MODEL.WEIGHTS" in text


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


def saved(folder, *numbers: int) -> list[nn.Module]:
    """Models, and their checkpoints in a folder."""
    models = []
    for number in numbers:
        models.append(model())
        VideoCheckpointer(models[-1], str(folder)).save(f"model_{number:07d}", iteration=number)
    return models


def test_resuming_takes_the_last_checkpoint(tmp_path):
    *_, last = saved(tmp_path, 1, 3)
    target = model()
    checkpointer = VideoCheckpointer(target, str(tmp_path))
    assert checkpointer.resume_or_load("other.pth", resume=True) == {"iteration": 3}
    assert torch.equal(target.heads.weight, last.heads.weight)
    assert checkpointer.resumed_from == str(tmp_path / "model_0000003.pth")


FRESH = {"complete": False, "reinitialize": ["heads.weight"], "weights_set": "model_ema"}
"""What holds where a training begins with other weights."""


def test_a_checkpoint_that_is_resumed_is_taken_as_it_is(tmp_path):
    source, target = model(), model()
    saver = VideoCheckpointer(source, str(tmp_path))
    saver.save("model_0000001", iteration=1, model_ema=model().state_dict())
    assert VideoCheckpointer(target, str(tmp_path), **FRESH).resume_or_load("other.pth")["iteration"] == 1
    assert torch.equal(target.heads.weight, source.heads.weight)
    del source.heads
    saver.save("model_0000003", iteration=3)
    with pytest.raises(CheckpointError, match="Not in the file: heads.bias, heads.weight"):
        VideoCheckpointer(model(), str(tmp_path), **FRESH).resume_or_load("other.pth")


@pytest.mark.parametrize("resume", [False, True])
def test_other_weights_are_taken_as_asked(tmp_path, resume):
    """Without a checkpoint, or where none is wanted."""
    average, target = model(), model()
    fresh = target.heads.weight.detach().clone()
    if not resume:
        saved(tmp_path, 1)
    weights = average.state_dict()
    del weights["heads.bias"]
    torch.save({"model": model().state_dict(), "model_ema": weights}, tmp_path / "w.pth")
    checkpointer = VideoCheckpointer(target, str(tmp_path), **FRESH)
    checkpointer.resume_or_load(str(tmp_path / "w.pth"), resume=resume)
    assert checkpointer.resumed_from is None
    assert torch.equal(target.backbone.net.weight, average.backbone.net.weight)
    assert torch.equal(target.heads.weight, fresh)


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "page", "not finite", "no weights"])
def test_resuming_falls_back_to_the_checkpoint_before(tmp_path, caplog, damage):
    first, second, last = saved(tmp_path, 1, 3, 5)
    path = tmp_path / "model_0000005.pth"
    if damage == "gone":
        path.unlink()
    elif damage == "not finite":
        nn.init.constant_(last.heads.bias, float("nan"))
        torch.save({"model": last.state_dict()}, path)
    elif damage == "no weights":
        torch.save({"iteration": 5}, path)
    else:
        path.write_bytes({"cut": path.read_bytes()[:700], "empty": b"", "page": b"<html></html>"}[damage])
    target = model()
    extra = VideoCheckpointer(target, str(tmp_path)).resume_or_load("", resume=True)
    assert extra == {"iteration": 3} and torch.equal(target.heads.weight, second.heads.weight)
    assert f"{path}" in caplog.text and "Trying the checkpoint before it" in caplog.text


def test_checkpoints_of_a_longer_run_are_not_before_the_last_one(tmp_path):
    saved(tmp_path, 9, 1, 3)  # 9 is left of another training in the same folder
    (tmp_path / "model_0000003.pth").write_bytes(b"")
    (tmp_path / "model_ema.pth").write_bytes((tmp_path / "model_0000009.pth").read_bytes())
    assert VideoCheckpointer(model(), str(tmp_path)).resume_or_load("", resume=True) == {"iteration": 1}


def test_no_checkpoint_that_can_be_read(tmp_path):
    saved(tmp_path, 1, 3)
    for path in tmp_path.glob("*.pth"):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"--resume: none of .* \(model_0000003.pth, model_0000001.pth\)"):
        VideoCheckpointer(model(), str(tmp_path)).resume_or_load("", resume=True)


def test_a_checkpoint_of_another_model_is_no_reason_to_go_back(tmp_path):
    saved(tmp_path, 1)
    VideoCheckpointer(model(width=5), str(tmp_path)).save("model_0000003")
    with pytest.raises(CheckpointError, match="Other shape: backbone.net"):
        VideoCheckpointer(model(), str(tmp_path)).resume_or_load("", resume=True)


@pytest.mark.parametrize("name", ["w.pth", "two words.pth", "100%.pth"])
def test_file_addresses(tmp_path, name):
    source, target = model(), model()
    address = (tmp_path / name).as_uri()
    write(tmp_path / name, source)
    for form in (address, address.replace("file://", "file://localhost")):
        VideoCheckpointer(target).load(form)
        assert torch.equal(target.heads.weight, source.heads.weight)
    with pytest.raises(CheckpointError, match="file://host/w.pth is on another machine"):
        VideoCheckpointer(target).load("file://host/w.pth")
    with pytest.raises(CheckpointError, match="there is no file /absent/w.pth"):
        VideoCheckpointer(target).load("file:///absent/w.pth")


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Stands for Detectron2's server: serves the files of a folder, and remembers what it was asked for."""
    asked = []

    def fetch(self, path, force=False, **kwargs):
        asked.append(path)
        local = tmp_path / path.partition("?")[0].rpartition("/")[2]
        if not local.is_file():
            raise OSError("HTTP Error 404: Not Found")
        return str(local)

    monkeypatch.setattr(HTTPURLHandler, "_get_local_path", fetch)
    return asked


def test_addresses_of_detectron2(tmp_path, published):
    source, target = model(), model()
    write(tmp_path / "model_final.pkl", source)
    VideoCheckpointer(target).load("detectron2://ViTDet/COCO/f325346929/model_final.pkl")
    assert torch.equal(target.heads.weight, source.heads.weight)
    assert published == ["https://dl.fbaipublicfiles.com/detectron2/ViTDet/COCO/f325346929/model_final.pkl"]
    VideoCheckpointer(target).load("https://example.org/a/model_final.pkl?matching_heuristics=True")
    with pytest.raises(CheckpointError, match="detectron2://absent.pkl cannot be fetched: .*404"):
        VideoCheckpointer(target).load("detectron2://absent.pkl")


def test_a_page_that_was_fetched_in_place_of_a_file(tmp_path, published):
    (tmp_path / "uc").write_bytes(b"<!DOCTYPE html><html><title>Virus scan warning</title></html>")
    with pytest.raises(CheckpointError) as caught:
        VideoCheckpointer(model()).load("https://name:secret@drive.example.org/uc?id=secret")
    assert "uc is an HTML page" in str(caught.value) and "delete the file to fetch it again" in str(caught.value)
    with pytest.raises(CheckpointError, match="https://drive.example.org/w.pth cannot be fetched") as other:
        VideoCheckpointer(model()).load("https://name:secret@drive.example.org/w.pth?key=secret")
    assert "secret" not in f"{caught.value} {other.value}"
    with pytest.raises(CheckpointError, match="cannot be fetched"):
        VideoCheckpointer(model()).load("http://[::1")  # no address at all


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(CheckpointError, match="is a folder; name the file in it"):
        VideoCheckpointer(model()).load(str(tmp_path))


def test_a_set_of_weights_by_its_key(tmp_path):
    source, average, target = model(), model(), model()
    torch.save({"model": source.state_dict(), "model_ema": average.state_dict()}, tmp_path / "w.pth")
    VideoCheckpointer(target).load(str(tmp_path / "w.pth"))
    assert torch.equal(target.heads.weight, source.heads.weight)
    VideoCheckpointer(target, weights_set="model_ema").load(str(tmp_path / "w.pth"))
    assert torch.equal(target.heads.weight, average.heads.weight)


@pytest.mark.parametrize("name", ["w.pth?download=true", "w#1.pth", "?.pth", "Run:1.pth", "http:w.pth"])
def test_a_path_is_no_address(tmp_path, monkeypatch, name):
    """The real Detectron2 would read w.pth, whose weights are others."""
    monkeypatch.chdir(tmp_path)
    source, target = model(), model()
    torch.save({"model": model().state_dict()}, "w.pth")
    torch.save({"model": source.state_dict()}, name)
    VideoCheckpointer(target).load(name)
    assert torch.equal(target.heads.weight, source.heads.weight)


def test_a_refused_file_leaves_the_model_as_it_was(tmp_path):
    target = model()
    before = target.heads.weight.clone()
    with pytest.raises(CheckpointError, match="does not fit the model"):
        VideoCheckpointer(target).load(write(tmp_path / "w.pth", model(width=5)))
    assert torch.equal(target.heads.weight, before)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.ones(4, 2, dtype=torch.int8), "heads.weight has the type torch.int8, as quantised weights have"),
        (torch.ones(4, 2, dtype=torch.bool), "heads.weight has the type torch.bool"),
        (torch.full((4, 2), 1e300, dtype=torch.float64), "has numbers that are too large for torch.float32"),
    ],
)
def test_numbers_that_the_model_cannot_hold(tmp_path, value, message):
    torch.save({"model": {**model().state_dict(), "heads.weight": value}}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=message):
        VideoCheckpointer(model()).load(str(tmp_path / "w.pth"))
