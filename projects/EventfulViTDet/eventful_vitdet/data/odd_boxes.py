"""Boxes that lie partly or wholly outside of their image, or have no area: gathered, then said or refused at once."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from ..errors import DatasetError, shorten
from .annotation_file import is_box, quote
from .read_rules import ReadRules

MAX_OVERSHOOT_PIXELS = 1.0
MAX_NAMED_BOXES = 10

logger = logging.getLogger(__name__)


@dataclass
class OddBoxes:
    """Applies the rules of DATASETS.BOXES_OVER_EDGE and EMPTY_BOXES to the boxes of a file, and keeps what was odd."""

    json_file: str
    rules: ReadRules
    boxes: int = 0
    over_edge: list[str] = field(default_factory=list)
    outside: int = 0
    """How many of those over the edge lie wholly outside, so that nothing is left of them."""
    empty: list[str] = field(default_factory=list)
    _corners: int = 0
    """How many of those over the edge would lie inside if they were [x0, y0, x1, y1]."""

    def usable_part(self, name: str, box: object, width: int, height: int) -> list[float] | None:
        """[x, y, width, height] in pixels of the part of a box inside of its image; None leaves the box out.

        An overshoot of up to a pixel is rounding, and is cut off silently. Raises DatasetError if it is no box.

        Args:
            name: of the annotation, such as "annotation 3".
            width, height: of the image.
        """
        if not is_box(box):
            raise DatasetError(
                f"{self.json_file}: {name} has box {quote(box)}; expected four finite numbers [x, y, width, height]"
            )
        self.boxes += 1
        x, y, w, h = (float(value) for value in box)
        if w <= 0 or h <= 0:
            self.empty.append(f"{name} {quote(box)}")
            return None
        overshoot = max(-x, -y, x + w - width, y + h - height)
        if overshoot <= 0:
            return [x, y, w, h]
        x0, y0, x1, y1 = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
        inside = x1 > x0 and y1 > y0
        if overshoot > MAX_OVERSHOOT_PIXELS or not inside:
            self.over_edge.append(f"{name} {quote(box)} in {width} x {height}")
            self.outside += not inside
            self._corners += 0 <= x < w <= width and 0 <= y < h <= height
            if self.rules.boxes_over_edge != "clip" or not inside:
                return None
        return [x0, y0, x1 - x0, y1 - y0]

    def conclude(self) -> None:
        """Raise DatasetError, or warn, naming the first ten boxes of each kind and how many there are."""
        refused = []
        if self.over_edge:
            said = f"{len(self.over_edge)} of {self.boxes} boxes reach over the edge of their image" + self._guess()
            names = shorten(self.over_edge, MAX_NAMED_BOXES)
            if self.rules.boxes_over_edge == "error":
                advice = "DATASETS.BOXES_OVER_EDGE clip cuts them off, drop leaves them out"
                refused.append(f"{said}: {names}. {advice}")
            else:
                logger.warning("%s: %s and are %s: %s", self.json_file, said, self._done(), names)
        if self.empty:
            said = f"{len(self.empty)} of {self.boxes} boxes have no area (width or height is not positive)"
            names = shorten(self.empty, MAX_NAMED_BOXES)
            if self.rules.empty_boxes == "error":
                refused.append(f"{said}: {names}. DATASETS.EMPTY_BOXES drop leaves them out")
            else:
                logger.warning("%s: %s and are left out: %s", self.json_file, said, names)
        if refused:
            raise DatasetError(f"{self.json_file}: {'; '.join(refused)}")

    def _done(self) -> str:
        if self.rules.boxes_over_edge == "drop":
            return "left out"
        return "cut off there" + (f" ({self.outside} of them lie wholly outside: left out)" if self.outside else "")

    def _guess(self) -> str:
        """A mistake that is easily made shows in most boxes."""
        if self._corners == len(self.over_edge) and 2 * self._corners > self.boxes:
            return " (are they [x0, y0, x1, y1] in place of [x, y, width, height]?)"
        return ""
