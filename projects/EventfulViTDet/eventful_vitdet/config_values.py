"""What the values of configuration keys can be, beyond the type that yacs compares: found before anything is built."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from detectron2.config import CfgNode

from .errors import ConfigError


def is_text(value: object) -> bool:
    return isinstance(value, str)


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_positive(value: object) -> bool:
    return is_number(value) and value > 0


def is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_size(value: object) -> bool:
    return is_whole(value) and value >= 0


def is_list_of_positive(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(map(is_positive, value))


@dataclass(frozen=True)
class SequenceRule:
    """A sequence: what each of its values is, and how many there can be; () is any number."""

    is_value: Callable[[object], bool]
    values: str
    lengths: Sequence[int] = ()
    may_be_empty: bool = True

    def fits(self, found: object) -> bool:
        """Whether a value is such a sequence."""
        if not isinstance(found, (list, tuple)) or not all(map(self.is_value, found)):
            return False
        return len(found) in self.lengths if self.lengths else self.may_be_empty or len(found) > 0

    def __str__(self) -> str:
        count = " or ".join(map(str, self.lengths)) or ("any number of" if self.may_be_empty else "one or more")
        return f"{count} {self.values}"


TEXTS = SequenceRule(is_text, "names")
NUMBERS = SequenceRule(is_number, "numbers")
LEVELS = SequenceRule(is_text, "names of feature maps", may_be_empty=False)
RANGE = SequenceRule(is_number, "numbers", (2,))
BOX_WEIGHTS = SequenceRule(is_positive, "positive numbers", (4,))
ANCHORS = SequenceRule(is_list_of_positive, "lists of positive numbers", may_be_empty=False)

SEQUENCES = {
    "DATASETS.TRAIN": TEXTS,
    "DATASETS.TEST": TEXTS,
    "INPUT.BRIGHTNESS": RANGE,
    "INPUT.CHANNEL_GAIN": RANGE,
    "INPUT.SATURATION": RANGE,
    "INPUT.CONTRAST": RANGE,
    "INPUT.SCALE_JITTER": RANGE,
    "INPUT.CROP_PIXELS": SequenceRule(is_size, "numbers of pixels", (2,)),
    "INPUT.MIN_SIZE_TRAIN": SequenceRule(is_size, "numbers of pixels", may_be_empty=False),
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": ANCHORS,
    "MODEL.ANCHOR_GENERATOR.SIZES": ANCHORS,
    "MODEL.PIXEL_MEAN": NUMBERS,
    "MODEL.PIXEL_STD": SequenceRule(is_positive, "positive numbers"),
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": BOX_WEIGHTS,
    "MODEL.ROI_HEADS.IN_FEATURES": LEVELS,
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": NUMBERS,
    "MODEL.RPN.BBOX_REG_WEIGHTS": BOX_WEIGHTS,
    "MODEL.RPN.CONV_DIMS": SequenceRule(is_whole, "whole numbers"),
    "MODEL.RPN.IN_FEATURES": LEVELS,
    "MODEL.RPN.IOU_THRESHOLDS": NUMBERS,
    "MODEL.SIMPLE_PYRAMID.SCALE_FACTORS": SequenceRule(is_positive, "positive numbers", may_be_empty=False),
    "MODEL.VIT.IMG_SIZE_HW": SequenceRule(is_size, "numbers of pixels"),
    "MODEL.VIT.WINDOW_BLOCKS": SequenceRule(is_whole, "numbers of blocks"),
    "SOLVER.STEPS": SequenceRule(is_whole, "numbers of iterations"),
}
POSITIVE = (
    "MODEL.ROI_BOX_HEAD.FC_DIM",
    "MODEL.RPN.POST_NMS_TOPK_TEST",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN",
    "MODEL.RPN.PRE_NMS_TOPK_TEST",
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN",
    "MODEL.SIMPLE_PYRAMID.OUT_CHANNELS",
    "MODEL.VIT.MLP_RATIO",
)
RANGES = {
    "MODEL.EVENTFUL.GPU_CROSSOVER": (0, math.inf),
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": (1, 1000),
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": (0, 1000),
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": (0, 1),
    "MODEL.RPN.POSITIVE_FRACTION": (0, 1),
    "MODEL.VIT.WINDOW_SIZE": (0, 10_000),
    "SEED": (-math.inf, 2**32 - 1),
    "SOLVER.BASE_LR": (0, math.inf),
    "TEST.STREAMS_PER_BATCH": (-math.inf, 10_000),
    "TEST.THREADS_PER_PROCESS": (-math.inf, 10_000),
}
"""The smallest and the largest value; infinity where the code that uses the value checks it."""


def check_values(cfg: CfgNode) -> None:
    """Raise ConfigError, naming the key, for a value that no model, training or evaluation can have."""
    for key, rule in SEQUENCES.items():
        if not rule.fits(found := lookup(cfg, key)):
            raise ConfigError(f"{key} is {found!r}; expected {rule}")
    for key in POSITIVE:
        if not is_positive(found := lookup(cfg, key)):
            raise ConfigError(f"{key} is {found!r}; expected a positive number")
    for key, (least, most) in RANGES.items():
        found = lookup(cfg, key)
        if not found >= least:  # NaN too
            raise ConfigError(f"{key} is {found!r}; expected {least} or larger")
        if found > most:
            raise ConfigError(f"{key} is {found!r}; expected {most} or less")


def lookup(cfg: CfgNode, key: str) -> object:
    """The value of a key such as "MODEL.VIT.DEPTH"."""
    for part in key.split("."):
        cfg = cfg[part]
    return cfg
