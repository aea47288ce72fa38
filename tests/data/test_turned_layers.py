"""Layers that are turned: nothing is cut off, and points go where the matrix says."""

from __future__ import annotations

import numpy as np
import pytest
from eventful_vitdet.turned_layers import turn_layer


@pytest.mark.parametrize("angle", [0.0, 30.0, -75.0, 90.0])
def test_points_go_where_the_matrix_says_and_nothing_is_cut_off(angle):
    layer = np.zeros((20, 31, 2), np.float32)
    layer[3:6, 24:27] = 1
    turned, turn = turn_layer(layer, angle, 2)
    assert turned.sum() == pytest.approx(layer.sum(), rel=0.03)  # OpenCV interpolates in steps of 1/32
    rows, columns = np.nonzero(turned[..., 0] > 0.5)
    x, y = turn @ (25, 4, 1)
    assert columns.mean() == pytest.approx(x, abs=0.5) and rows.mean() == pytest.approx(y, abs=0.5)
    corners = turn @ [[0, 31, 0, 31], [0, 0, 20, 20], [1, 1, 1, 1]]
    assert (corners > -1e-6).all() and (corners.max(axis=1) < [turned.shape[1], turned.shape[0]]).all()


def test_what_the_layer_does_not_reach():
    layer = np.full((10, 10, 3), 5, np.float32)
    assert turn_layer(layer, 45.0)[0][0, 0].tolist() == [0, 0, 0]
    assert turn_layer(layer, 45.0, around=(1, 2, 3))[0][0, 0].tolist() == [1, 2, 3]
    assert turn_layer(layer, 0.0)[0].shape == layer.shape and turn_layer(layer, 0.0, 4)[0].shape == (14, 14, 3)
