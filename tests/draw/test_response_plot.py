from __future__ import annotations

import cv2
import numpy as np
import pytest
from detectron2.modeling import build_model
from eventful_vitdet.control_response import count_scene_cuts, measure_responses
from eventful_vitdet.draw.response_plot import plot_responses
from eventful_vitdet.video import open_source

from .conftest import picture


def test_responses_of_a_real_model(demo_cfg, source, tmp_path):
    model = build_model(demo_cfg).eval()
    first, second = measure_responses(demo_cfg, model, source, "gflops", [1.0, 1e-6], 6)
    assert first.mean > second.mean and second.mean_r < 6 < first.mean_r and second.target == 1e-6
    assert len(first.costs) == len(second.r) == 6 and first.flushed == (True, *[False] * 5)
    assert first.mean == pytest.approx(np.mean(first.costs)) and second.mean_r == np.mean(second.r[3:])
    plot_responses([first, second], "GFlops", str(tmp_path / "out" / "response.png"))
    drawn = cv2.imread(str(tmp_path / "out" / "response.png"))
    assert drawn.shape[1] > drawn.shape[0] > 300 and drawn.std() > 5
    with pytest.raises(ValueError, match="has too few frames for 3 targets of 6 frames"):
        measure_responses(demo_cfg, model, source, "gflops", [1, 2, 3], 6)


def test_joints_of_videos_are_counted(demo_cfg, tmp_path):
    for name in ("a", "b", "c"):
        writer = cv2.VideoWriter(str(tmp_path / f"{name}.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 30, (96, 64))
        for index in range(6):
            writer.write(picture(index) if name == "b" else 255 - picture(index))
        writer.release()
    counts = count_scene_cuts(demo_cfg, build_model(demo_cfg).eval(), open_source(str(tmp_path)), 4)
    assert str(counts) == "2 of 2 joints seen as scene cuts, and 0 elsewhere"
