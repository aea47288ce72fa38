"""A detector that takes milliseconds, and pictures for it; the data set and models of the evaluation serve here too."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from evaluation.conftest import HEIGHT, WIDTH, cfg, dataset, make_real, model, write_dataset
from eventful_vitdet.config_files import build_cfg
from eventful_vitdet.video import open_source

__all__ = ["HEIGHT", "WIDTH", "cfg", "dataset", "make_real", "model", "write_dataset"]

CONFIG = "configs/demo/vitdet_tiny.yaml"
OPTIONS = {
    "MODEL.DEVICE": "cpu",
    "MODEL.VIT.EMBED_DIM": "16",
    "MODEL.VIT.DEPTH": "2",
    "MODEL.VIT.NUM_HEADS": "2",
    "MODEL.VIT.WINDOW_BLOCKS": "[0]",
    "MODEL.SIMPLE_PYRAMID.OUT_CHANNELS": "8",
    "MODEL.ROI_BOX_HEAD.FC_DIM": "16",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": "0.0",
    # Without training all boxes score alike: a hundred would be drawn in every frame, which takes longer than the rest.
    "MODEL.RPN.POST_NMS_TOPK_TEST": "20",
    "TEST.DETECTIONS_PER_IMAGE": "10",
}
FRAMES = 8


def picture(index: int, height: int = 64, width: int = 96) -> np.ndarray:
    image = np.full((height, width, 3), 90, np.uint8)
    image[10:30, 4 * index : 4 * index + 20] = (0, 0, 250)
    return image


@pytest.fixture(scope="module")
def demo_cfg(repository):
    """The demo's configuration, with a smaller network."""
    return build_cfg(str(repository / CONFIG), [word for pair in OPTIONS.items() for word in pair])


@pytest.fixture
def source(tmp_path):
    """Twelve pictures with a moving patch."""
    (tmp_path / "in").mkdir()
    for index in range(12):
        cv2.imwrite(str(tmp_path / "in" / f"{index}.png"), picture(index))
    return open_source(str(tmp_path / "in"))
