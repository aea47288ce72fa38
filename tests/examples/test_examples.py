"""The scripts in examples/, with tiny models of random weights."""

import re
import runpy
import sys

import av
import numpy as np
import pytest
import torch

SIZE = 32
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8, "initializer_range": 0.3}


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers", reason="transformers is not installed")


@pytest.fixture
def run_example(repository, tmp_path, monkeypatch, capsys):
    """Runs an example on a video of three frames with a model and its image processor; returns what it printed."""

    def run(name, *parts):
        for part in parts:
            part.save_pretrained(tmp_path / "model")
        _write_video(tmp_path / "video.mp4")
        monkeypatch.setattr(sys, "argv", [name, str(tmp_path / "video.mp4"), str(tmp_path / "model")])
        capsys.readouterr()
        runpy.run_path(str(repository / "examples" / name), run_name="__main__")
        return capsys.readouterr().out

    return run


def _write_video(path):
    pictures = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = SIZE
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def test_features(run_example, transformers):
    config = transformers.Dinov2Config(image_size=SIZE, mlp_ratio=2, **SMALL)
    size = {"shortest_edge": SIZE}, {"height": SIZE, "width": SIZE}
    prepare = transformers.BitImageProcessor(size=size[0], crop_size=size[1])
    lines = run_example("dinov2_features.py", transformers.Dinov2Model(config), prepare).splitlines()
    assert [line.split(":")[0] for line in lines] == ["frame 0", "frame 1", "frame 2"]
    likeness = [tuple(map(float, re.findall(r"(?:token|16 patches) ([\d.]+)", line))) for line in lines]
    assert likeness[0] == (1.0, 1.0)
    assert all(0 < of_class <= 1 and 0 < of_patches < 0.9 for of_class, of_patches in likeness[1:])


def test_detector(run_example, transformers):
    torch.manual_seed(0)
    config = transformers.YolosConfig(
        image_size=[SIZE, SIZE], intermediate_size=32, num_detection_tokens=5, num_labels=1, **SMALL
    )
    prepare = transformers.YolosImageProcessor(size={"height": SIZE, "width": SIZE}, do_pad=False)
    detector = transformers.YolosForObjectDetection(config)
    with torch.no_grad():
        detector.class_labels_classifier.layers[-1].bias[0] = 5.0  # every detection token is sure
    printed = run_example("yolos_detector.py", detector, prepare)
    costs = [float(cost) for cost in re.findall(r"frame \d: ([\d.]+) GFlops", printed)]
    assert len(costs) == 3 and len(re.findall(r"  LABEL_0 1?0?\.\d\d at -?\d+, -?\d+, -?\d+, -?\d+", printed)) == 15
