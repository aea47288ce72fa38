"""Boxes as (x, y, width, height) in pixels."""

from __future__ import annotations


def clip_box(box: list[float], width: int, height: int) -> list[float]:
    """The part of a box inside of its image; a box that lies inside is returned as it is, digit for digit."""
    x, y, w, h = box
    if x >= 0 and y >= 0 and x + w <= width and y + h <= height:
        return box
    x0, y0 = max(x, 0), max(y, 0)
    return [x0, y0, min(x + w, width) - x0, min(y + h, height) - y0]
