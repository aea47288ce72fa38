from __future__ import annotations

import numpy as np
from eventful_vitdet.draw.painter import FramePainter, fit_into
from eventful_vitdet.predictor import FrameResult
from eventful_vitdet.structures import Detections, FrameCost, SourceFrame

from .conftest import picture


def cost(gflops: float, flushed: bool = False) -> FrameCost:
    return FrameCost(flushed, {"linear": int(gflops * 1e9)}, 0.01, 0.02)


def test_fitting_keeps_the_shape_of_things():
    fitted = fit_into(np.full((100, 50, 3), 255, np.uint8), 60, 90)
    assert fitted.shape == (60, 90, 3)
    columns = (fitted > 0).any(axis=(0, 2))
    assert columns.sum() == 30 and columns[30:60].all()


def test_notices_are_written_on_the_frame():
    detections = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))
    result = FrameResult(detections, cost(1.0), "top-r 3", False, (64, 96), (4, 6))
    painter = FramePainter(["a"], {}, tokens=None)
    plain = painter.paint(SourceFrame(0, 0, 0.0, picture(0), "x"), result)
    noticed = painter.paint(SourceFrame(1, 1, 0.1, picture(0), "x", "stream was lost"), result)
    assert (plain[:12, 30:60] == 90).mean() > 0.5 and (noticed[:12, :60] == 32).mean() > 0.3
