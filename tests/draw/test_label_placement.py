from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from eventful_vitdet.draw.label_placement import corners_around, overlaps, place_label

BOUNDS = (0.0, 0.0, 200.0, 100.0)
SIZE = (40.0, 10.0)


def place(boxes: list) -> list:
    labels: list = []
    for box in boxes:
        corners = corners_around(box, SIZE, BOUNDS)
        place_label(SIZE, corners, BOUNDS, labels, boxes)
    return labels


def test_a_label_stands_above_its_box_or_else_below():
    assert place([(50, 40, 90, 60)]) == [(50, 30, 90, 40)]
    assert place([(50, 0, 90, 60)]) == [(50, 60, 90, 70)]  # above, it would lie on the box


def test_a_box_that_fills_the_picture_has_its_label_inside():
    ((x0, y0, x1, y1),) = place([(0, 0, 200, 100)])
    assert x0 >= 0 and y0 >= 0 and x1 <= 200 and y1 <= 100


def test_a_box_over_the_edge_has_its_label_at_the_part_that_can_be_seen():
    assert place([(50, -30, 90, 60)]) == place([(50, 0, 90, 60)])
    assert place([(120, 40, 320, 60)]) == place([(120, 40, 200, 60)])
    assert corners_around((50, 130, 90, 160), SIZE, BOUNDS) == corners_around((50, 100, 90, 100), SIZE, BOUNDS)


def test_boxes_in_the_same_place_have_labels_apart():
    labels = place([(50, 40, 90, 60), (51, 40, 91, 60), (50, 41, 90, 61), (52, 42, 92, 62)])
    assert all(overlaps(np.array([a]), [b])[0] == 0 for a, b in combinations(labels, 2))


def test_a_label_keeps_clear_of_other_boxes_where_it_can():
    (first, _) = place([(50, 40, 90, 60), (45, 10, 95, 39)])
    assert overlaps(np.array([first]), [(45, 10, 95, 39)])[0] == 0


@pytest.mark.parametrize("seed", range(3))
def test_as_many_as_there_is_room_for(seed):
    generator = np.random.default_rng(seed)
    starts = generator.uniform((0, 15), (150, 70), (8, 2))
    boxes = [(x, y, x + w, y + h) for (x, y), (w, h) in zip(starts, generator.uniform(5, 40, (8, 2)))]
    labels = place(boxes)
    assert all(x0 >= 0 and y0 >= 0 and x1 <= 200 and y1 <= 100 for x0, y0, x1, y1 in labels)
    covered = sum(overlaps(np.array([a]), [b])[0] for a, b in combinations(labels, 2))
    assert covered < 0.02 * 8 * SIZE[0] * SIZE[1]


def test_overlaps():
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30]], float)
    assert overlaps(boxes, [(5, 5, 15, 15), (0, 0, 1, 1)]).tolist() == [26, 0]
    assert overlaps(boxes, []).tolist() == [0, 0]
