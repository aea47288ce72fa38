"""Boxes over the edge of their image, and boxes without area."""

from __future__ import annotations

import pytest
from eventful_vitdet.data.odd_boxes import OddBoxes
from eventful_vitdet.data.read_rules import ReadRules
from eventful_vitdet.errors import DatasetError

WIDTH, HEIGHT = 64, 48


def read(boxes: list[list[float]], **rules: str) -> list[list[float] | None]:
    """What is left of boxes in an image of 64 x 48 pixels."""
    odd = OddBoxes("set.json", ReadRules(**rules))
    parts = [odd.usable_part(f"annotation {i}", box, WIDTH, HEIGHT) for i, box in enumerate(boxes)]
    odd.conclude()
    return parts


INSIDE = [5, 6, 10, 10]
OVER = {
    "left": ([-3.5, 2, 9, 9], [0, 2, 5.5, 9]),
    "above": ([1, -20, 9, 30], [1, 0, 9, 10]),
    "right": ([60, 4, 40, 5], [60, 4, 4, 5]),
    "below": ([1, 40, 9, 9.5], [1, 40, 9, 8]),
    "all around": ([-5, -5, 100, 100], [0, 0, 64, 48]),
    "outside": ([70, 4, 5, 5], None),
    "just outside": ([64, 4, 0.5, 4], None),
}


@pytest.mark.parametrize("name", OVER)
def test_boxes_over_the_edge(name, caplog):
    box, part = OVER[name]
    assert read([INSIDE, box]) == [INSIDE, part]
    assert "set.json: 1 of 2 boxes reach over the edge of their image and are cut off there" in caplog.text
    assert f"annotation 1 {box} in 64 x 48" in caplog.text
    assert ("wholly outside: left out" in caplog.text) == (part is None)
    caplog.clear()
    assert read([INSIDE, box], boxes_over_edge="drop") == [INSIDE, None]
    assert "1 of 2 boxes reach over the edge of their image and are left out: annotation 1" in caplog.text
    with pytest.raises(DatasetError, match="^set.json: 1 of 2 boxes reach over .*BOXES_OVER_EDGE clip cuts them off"):
        read([INSIDE, box], boxes_over_edge="error")


@pytest.mark.parametrize("rule", ["clip", "drop", "error"])
def test_an_overshoot_of_up_to_a_pixel_is_rounding(rule, caplog):
    assert read([[-0.5, 40, 64.75, 8.9]], boxes_over_edge=rule) == [[0, 40, 64, 8]]
    assert not caplog.records


@pytest.mark.parametrize("box", [[1, 2, 0, 3], [1, 2, 3, 0], [1, 2, 3, -3], [1, 2, -3, 3], [70, 2, 0, 0]])
def test_boxes_without_area(box, caplog):
    with pytest.raises(DatasetError, match=r"^set.json: 1 of 2 boxes have no area .*annotation 1 .*EMPTY_BOXES drop"):
        read([INSIDE, box])
    assert read([INSIDE, box], empty_boxes="drop") == [INSIDE, None]
    assert "1 of 2 boxes have no area (width or height is not positive) and are left out: annotation 1" in caplog.text


def test_all_are_counted_and_ten_of_each_kind_named():
    boxes = [[-9, 0, 20, 20]] * 14 + [[5, 5, 0, 4]] * 12
    with pytest.raises(DatasetError) as caught:
        read(boxes, boxes_over_edge="error")
    text = str(caught.value)
    assert "14 of 26 boxes reach over" in text and "12 of 26 boxes have no area" in text
    assert text.count("annotation ") == 20 and "and 4 more" in text and "and 2 more" in text and "\n" not in text


def test_corners_in_place_of_sides_are_guessed(caplog):
    read([[30, 20, 60, 40], [20, 20, 50, 45], [2, 2, 10, 10]])
    assert "are they [x0, y0, x1, y1] in place of [x, y, width, height]?" in caplog.text
    caplog.clear()
    read([[30, 20, 60, 40], [20, 20, 50, 45], [-9, 2, 20, 10]])
    assert caplog.records and "x0, y0" not in caplog.text


@pytest.mark.parametrize("keys", [{"boxes_over_edge": "keep"}, {"empty_boxes": "clip"}, {"first_frame_id": -1}])
def test_rules_that_do_not_exist(keys):
    with pytest.raises(ValueError, match="DATASETS." + next(iter(keys)).upper()):
        ReadRules(**keys)


def test_the_area_of_a_box_that_was_cut_off(write_dataset):
    from eventful_vitdet.data import load_coco_vid

    from .conftest import make_document

    document = make_document({1: [0, 1, 2]})
    boxes = [[60, 4, 40, 5], [60, 4, 40, 5], INSIDE]
    for annotation, box, area in zip(document["annotations"], boxes, (200, 12, 33)):
        annotation.update(bbox=box, area=area)
    frames = load_coco_vid(*write_dataset(document))
    # That of the whole box is no longer right; that of a mask inside of it may be.
    assert [frame["annotations"][0]["area"] for frame in frames] == [20, 12, 33]
