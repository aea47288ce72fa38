"""What reading a COCO-VID file lets pass: the keys DATASETS.* that Detectron2 does not have."""

from __future__ import annotations

from dataclasses import dataclass

from detectron2.config import CfgNode

from ..errors import ConfigError

BOXES_OVER_EDGE = ("clip", "drop", "error")
EMPTY_BOXES = ("error", "drop")


@dataclass(frozen=True)
class ReadRules:
    """How an annotation file is read. Raises ConfigError, naming the key, for values that do not exist."""

    boxes_over_edge: str = "clip"
    """Boxes that reach over the edge of their image by more than a pixel: cut them off, leave them out, or refuse."""
    empty_boxes: str = "error"
    """Boxes without width or height: refuse, or leave them out."""
    first_frame_id: int = 0
    """Number that the annotation file gives to the first frame of a video file."""
    paths_outside_root: bool = False
    """Let file names be absolute, or lead out of the data set's folder by `..`."""

    def __post_init__(self) -> None:
        for key, value, known in (
            ("BOXES_OVER_EDGE", self.boxes_over_edge, BOXES_OVER_EDGE),
            ("EMPTY_BOXES", self.empty_boxes, EMPTY_BOXES),
        ):
            if value not in known:
                raise ConfigError(f"DATASETS.{key} must be {' or '.join(map(repr, known))}, found {value!r}")
        if self.first_frame_id < 0:
            raise ConfigError(f"DATASETS.FIRST_FRAME_ID must be 0 or larger, found {self.first_frame_id}")

    @classmethod
    def from_config(cls, cfg: CfgNode) -> ReadRules:
        """The rules that DATASETS.* asks for."""
        keys = cfg.DATASETS
        return cls(keys.BOXES_OVER_EDGE, keys.EMPTY_BOXES, keys.FIRST_FRAME_ID, keys.PATHS_OUTSIDE_ROOT)


DEFAULT_RULES = ReadRules()
