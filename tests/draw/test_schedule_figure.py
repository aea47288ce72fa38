from __future__ import annotations

import cv2
import numpy as np
import pytest
from detectron2.modeling import build_model
from eventful_vitdet.control import Schedule
from eventful_vitdet.draw.schedule_figure import plot_run, record_run


def test_a_run_under_a_schedule_and_its_figure(demo_cfg, source, tmp_path):
    run = record_run(demo_cfg, build_model(demo_cfg).eval(), source, Schedule.parse("0:900,4:6,8:1,50:7"), frames=12)
    assert run.tokens == 24 and run.r == [24] * 4 + [6] * 4 + [1] * 4
    assert sorted(run.pictures) == [2, 6, 10]
    assert run.dense_gflops[0] == pytest.approx(run.backbone_gflops[0]) and run.dense_gflops[1] > run.dense_gflops[0]
    assert np.mean(run.backbone_gflops[1:4]) > np.mean(run.backbone_gflops[4:8]) > np.mean(run.backbone_gflops[8:])
    plot_run(run, str(tmp_path / "out" / "figure.png"), "a title")
    drawn = cv2.imread(str(tmp_path / "out" / "figure.png"))
    assert drawn.shape[1] > drawn.shape[0] > 300 and drawn.std() > 5


def test_a_video_shorter_than_the_figure(demo_cfg, source, tmp_path):
    run = record_run(demo_cfg, build_model(demo_cfg).eval(), source, Schedule.parse("0:6,100:1"), frames=200)
    assert len(run.r) == 12
    with pytest.raises(ValueError, match="the video ends after 12 frames, before the first picture, of frame 50"):
        plot_run(run, str(tmp_path / "figure.png"))
