from __future__ import annotations

import importlib.util

import cv2
import numpy as np
import pytest
from detectron2.modeling import build_model
from eventful_vitdet.command_line import build_cfg
from eventful_vitdet.control import Schedule
from eventful_vitdet.control_response import count_scene_cuts, measure_responses
from eventful_vitdet.errors import VideoReadError
from eventful_vitdet.video import open_source
from eventful_vitdet.visualization import plot_responses, plot_run, record_run

from .test_visualize import CONFIG, OPTIONS, picture


@pytest.fixture(scope="module")
def cfg(repository):
    return build_cfg(str(repository / CONFIG), [word for pair in OPTIONS.items() for word in pair])


@pytest.fixture
def source(tmp_path):
    (tmp_path / "in").mkdir()
    for index in range(12):
        cv2.imwrite(str(tmp_path / "in" / f"{index}.png"), picture(index))
    return open_source(str(tmp_path / "in"))


def test_a_run_under_a_schedule_and_its_figure(cfg, source, tmp_path):
    run = record_run(cfg, build_model(cfg).eval(), source, Schedule.parse("0:900,4:6,8:1,50:7"), frames=12)
    assert run.tokens == 24 and run.r == [24] * 4 + [6] * 4 + [1] * 4
    assert sorted(run.pictures) == [2, 6, 10]
    assert run.dense_gflops[0] == pytest.approx(run.backbone_gflops[0]) and run.dense_gflops[1] > run.dense_gflops[0]
    assert np.mean(run.backbone_gflops[1:4]) > np.mean(run.backbone_gflops[4:8]) > np.mean(run.backbone_gflops[8:])
    plot_run(run, str(tmp_path / "out" / "figure.png"), "a title")
    drawn = cv2.imread(str(tmp_path / "out" / "figure.png"))
    assert drawn.shape[1] > drawn.shape[0] > 300 and drawn.std() > 5


def test_a_video_shorter_than_the_figure(cfg, source, tmp_path):
    run = record_run(cfg, build_model(cfg).eval(), source, Schedule.parse("0:6,100:1"), frames=200)
    assert len(run.r) == 12
    with pytest.raises(ValueError, match="the video ends after 12 frames, before the first picture, of frame 50"):
        plot_run(run, str(tmp_path / "figure.png"))


def test_responses_of_a_real_model(cfg, source, tmp_path):
    model = build_model(cfg).eval()
    first, second = measure_responses(cfg, model, source, "gflops", [1.0, 1e-6], 6)
    assert first.mean > second.mean and second.mean_r < 6 < first.mean_r and second.target == 1e-6
    assert len(first.costs) == len(second.r) == 6 and first.flushed == (True, *[False] * 5)
    assert first.mean == pytest.approx(np.mean(first.costs)) and second.mean_r == np.mean(second.r[3:])
    plot_responses([first, second], "GFlops", str(tmp_path / "out" / "response.png"))
    drawn = cv2.imread(str(tmp_path / "out" / "response.png"))
    assert drawn.shape[1] > drawn.shape[0] > 300 and drawn.std() > 5
    with pytest.raises(ValueError, match="has too few frames for 3 targets of 6 frames"):
        measure_responses(cfg, model, source, "gflops", [1, 2, 3], 6)


def test_joints_of_videos_are_counted(cfg, tmp_path):
    for name in ("a", "b", "c"):
        writer = cv2.VideoWriter(str(tmp_path / f"{name}.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 30, (96, 64))
        for index in range(6):
            writer.write(picture(index) if name == "b" else 255 - picture(index))
        writer.release()
    counts = count_scene_cuts(cfg, build_model(cfg).eval(), open_source(str(tmp_path)), 4)
    assert str(counts) == "2 of 2 joints seen as scene cuts, and 0 elsewhere"


def test_the_tool_wants_a_detector_for_its_video(repository, source, capsys):
    spec = importlib.util.spec_from_file_location("make_figure", repository / "tools" / "make_figure.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(SystemExit):
        module.parse(["--input", "v.mp4"])
    assert "--input and --config-file belong together" in capsys.readouterr().err
    assert module.parse([]).frames == 180
    with pytest.raises(SystemExit):
        module.parse(["--frames", "0"])
    assert "--frames is 1 or larger" in capsys.readouterr().err
    arguments = module.parse(["--config-file", str(repository / CONFIG), "--input", str(repository)])
    with pytest.raises(VideoReadError, match="no image and no video"):
        module.main(arguments)
    arguments.input = str(source.paths[0])
    with pytest.raises(ValueError, match="MODEL.WEIGHTS is empty"):
        module.main(arguments)
