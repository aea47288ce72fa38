from __future__ import annotations

from dataclasses import replace

import numpy as np
from eventful_vitdet.draw.boxes import class_color, draw_detections, object_number
from eventful_vitdet.draw.labels import label_size, text_scale
from eventful_vitdet.structures import Detections


def detections(*rows: tuple[list[float], float, int]) -> Detections:
    boxes, scores, classes = zip(*rows)
    return Detections(np.array(boxes, np.float32), np.array(scores, np.float32), np.array(classes, np.int32))


def test_boxes_are_drawn_where_they_are_and_weak_ones_are_not():
    image = np.zeros((60, 100, 3), np.uint8)
    found = detections(([20, 30, 60, 50], 0.8, 1), ([70, 10, 90, 40], 0.2, 0))
    drawn = draw_detections(image, found, ["a", "b"])
    assert tuple(int(v) for v in drawn[50, 40]) == class_color(1)
    assert tuple(int(v) for v in drawn[40, 20]) == class_color(1)
    assert not drawn[:, 75:].any() and not image.any()


def test_objects_are_labelled_with_their_number():
    found = detections(([20, 30, 60, 50], 0.8, 0), ([70, 10, 90, 40], 0.7, 0))
    assert object_number(found, 0) == ""
    tracked = replace(found, tracks=np.array([12, -1]))
    assert [object_number(tracked, row) for row in (0, 1)] == ["#12 ", ""]
    image = np.zeros((60, 200, 3), np.uint8)
    plain, numbered = (draw_detections(image, which, ["bird"]) for which in (found, tracked))
    ground = (numbered == np.array(class_color(0), np.uint8)).all(2) & (plain == 0).all(2)
    assert ground.sum() > 20  # the label is longer


def test_box_at_the_upper_edge_keeps_its_label_inside():
    image = np.zeros((60, 100, 3), np.uint8)
    drawn = draw_detections(image, detections(([80, 0, 99, 30], 0.8, 0)), ["bird"])
    width, height = label_size("bird 80%", text_scale(image))
    assert drawn.shape == (60, 100, 3)
    assert (drawn == np.array(class_color(0), np.uint8)).all(axis=2).sum() > 0.55 * width * height
    assert not drawn[2:28, 83:96].any()  # and not on the object


def test_labels_of_boxes_in_one_place_can_all_be_read():
    image = np.full((200, 300, 3), 90, np.uint8)
    found = detections(([100, 80, 160, 130], 0.9, 0), ([102, 82, 158, 128], 0.8, 1), ([98, 78, 162, 132], 0.7, 2))
    drawn = draw_detections(image, found, ["helicopter", "aeroplane", "drone"])
    for index, name in enumerate(("helicopter 90%", "aeroplane 80%", "drone 70%")):
        color = np.array(class_color(index), np.uint8)
        width, height = label_size(name, text_scale(image))
        ground = (drawn == color).all(axis=2).sum()
        # Letters take some of a label's ground; boxes have lines of its colour.
        assert ground > 0.55 * width * height, name


def test_colors_are_stable_and_differ():
    colors = [class_color(i) for i in range(30)]
    assert len(set(colors)) == 30 and colors == [class_color(i) for i in range(30)]


def test_masks_are_tinted_where_they_are():
    image = np.full((60, 100, 3), 100, np.uint8)
    found = detections(([20, 30, 60, 50], 0.8, 1), ([70, 10, 90, 40], 0.2, 0), ([5, 5, 15, 15], 0.9, 0))
    masks = np.ones((3, 28, 28), np.float32)
    masks[0, :, 14:] = 0  # the left half of its box
    masks[2] = np.nan  # not asked for
    drawn = draw_detections(image, replace(found, masks=masks), ["a", "b"])
    plain = draw_detections(image, found, ["a", "b"])
    changed = (drawn != plain).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (31, 49, 21, 39)  # the box's line covers the rest
    expected = 0.6 * 100 + 0.4 * np.array(class_color(1))
    assert np.abs(drawn[45, 30] - expected).max() <= 1
