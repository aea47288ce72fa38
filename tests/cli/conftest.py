"""Weights of a detector that takes milliseconds, and pictures for it."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import torch
from detectron2.modeling import build_model
from draw.conftest import CONFIG, FRAMES, OPTIONS, picture
from eventful_vitdet.config_files import build_cfg
from safetensors.torch import save_file


@pytest.fixture(scope="session")
def weights(repository, tmp_path_factory) -> str:
    torch.manual_seed(0)
    model = build_model(build_cfg(str(repository / CONFIG), [word for pair in OPTIONS.items() for word in pair]))
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(model.state_dict(), str(path))
    return str(path)


@pytest.fixture
def images(tmp_path) -> Path:
    """A folder of eight pictures with a moving patch."""
    (tmp_path / "in").mkdir()
    for index in range(FRAMES):
        cv2.imwrite(str(tmp_path / "in" / f"{index}.png"), picture(index))
    return tmp_path / "in"
