from __future__ import annotations

import numpy as np
from eventful_vitdet.draw.cost_strip import BAR, BAR_PIXELS, CHART_PIXELS, FULL, LINE, CostChart, add_strip
from eventful_vitdet.structures import FrameCost


def cost(gflops: float, flushed: bool = False) -> FrameCost:
    return FrameCost(flushed, {"linear": int(gflops * 1e9)}, 0.01, 0.02)


def test_the_chart_shows_the_last_frames_in_bounded_memory():
    chart = CostChart(30)
    for i in range(1000):
        chart.add(cost(4.0 if i == 999 else 2.0), full=i == 999)
    drawn = chart.draw(chart.highest)
    assert len(chart._costs) == 30 // BAR_PIXELS
    assert tuple(drawn[39, 0]) == BAR and tuple(drawn[5, 0]) != BAR  # half as high as the last one
    assert tuple(drawn[5, 27]) == FULL
    assert CostChart(3000, scale=4.0).draw(1.0).shape == (4 * CHART_PIXELS, 3000, 3)  # to be seen in a large picture


def test_strip_adds_rows_and_leaves_the_picture():
    image = np.full((40, 64, 3), 77, np.uint8)
    with_strip = add_strip(image, "a text that is far too long for sixty-four pixels")
    assert with_strip.shape == (40 + LINE, 64, 3)
    assert (with_strip[:40] == 77).all() and with_strip[40:].max() > 100
