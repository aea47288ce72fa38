from __future__ import annotations

import cv2
import numpy as np
import pytest
from detectron2.modeling import build_model
from eventful_vitdet.controllers import Schedule
from eventful_vitdet.draw.schedule_figure import (
    DOTS_PER_INCH,
    WIDTH_INCHES,
    BudgetRun,
    fit_schedule,
    plot_run,
    record_run,
)
from eventful_vitdet.errors import ConfigError, DataError


def test_a_run_under_a_schedule_and_its_figure(demo_cfg, source, tmp_path, capsys):
    run = record_run(demo_cfg, build_model(demo_cfg).eval(), source, Schedule.parse("0:900,4:6,8:1,50:7"), frames=12)
    assert "figure: 100%" in capsys.readouterr().err  # it tells how far it is
    assert run.tokens == 24 and run.r == [24] * 4 + [6] * 4 + [1] * 4
    assert sorted(run.pictures) == [2, 6, 10]
    assert run.dense_gflops[0] == pytest.approx(run.backbone_gflops[0]) and run.dense_gflops[1] > run.dense_gflops[0]
    assert np.mean(run.backbone_gflops[1:4]) > np.mean(run.backbone_gflops[4:8]) > np.mean(run.backbone_gflops[8:])
    plot_run(run, str(tmp_path / "out" / "figure.png"), "a title")
    drawn = cv2.imread(str(tmp_path / "out" / "figure.png"))
    assert drawn.shape[1] > drawn.shape[0] > 300 and drawn.std() > 5


def test_a_video_that_ends_earlier_than_it_says(demo_cfg, source, tmp_path, caplog):
    """A picture of every budget that was reached, and a word about the others."""
    run = record_run(demo_cfg, build_model(demo_cfg).eval(), source, Schedule.parse("0:6,10:3,100:1"), frames=200)
    assert len(run.r) == 12 and sorted(run.pictures) == [5, 11]
    assert "the video ends after 12 frames, so top-r 1 was not reached" in caplog.text
    plot_run(run, str(tmp_path / "figure.png"))
    assert cv2.imread(str(tmp_path / "figure.png")) is not None


def test_a_run_without_frames_is_no_figure(tmp_path):
    with pytest.raises(DataError, match="no frames"):
        plot_run(BudgetRun([0]), str(tmp_path / "figure.png"))
    assert not (tmp_path / "figure.png").exists()


@pytest.mark.parametrize(
    ("schedule", "frames", "fitted"),
    [
        ("0:512,60:128,120:32", 180, "0:512,60:128,120:32"),
        ("0:512,60:128,120:32", 30, "0:512,10:128,20:32"),
        ("0:512,60:128,120:32", 3, "0:512,1:128,2:32"),
        ("0:9,1:8,2:7,1000:6", 8, "0:9,1:8,2:7,6:6"),
        ("0:9,5:8", 6, "0:9,5:8"),
        ("7", 1, "0:7"),
    ],
)
def test_every_budget_of_a_schedule_comes_within_a_short_video(schedule, frames, fitted):
    assert str(fit_schedule(Schedule.parse(schedule), frames)) == fitted


def test_more_budgets_than_frames():
    with pytest.raises(ConfigError, match="the video has 2 frames, too few for the 3 budgets of 0:5,10:4,20:3"):
        fit_schedule(Schedule.parse("0:5,10:4,20:3"), 2)


def test_pictures_are_drawn_as_large_as_they_are_shown(demo_cfg, source):
    run = record_run(demo_cfg, build_model(demo_cfg).eval(), source, Schedule.parse("0:6,6:1"), frames=12)
    width = WIDTH_INCHES * DOTS_PER_INCH / 2
    assert {picture.shape[1] for picture in run.pictures.values()} == {width}
