"""Times of the whole detector, from the picture to the boxes."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import torch

from .detector_agreement import DETECTRON2_NEEDS
from .frame_times import time_in_turn, timing_row
from .machine import missing_packages

if TYPE_CHECKING:
    from detectron2.config import CfgNode

CONFIG = "imagenet_vid/vitdet_b_1024_eventful_r512.yaml"
SECONDS = 25.0
WAYS = {"dense": None, "r=512": 512}
"""By name: the budget. A configured eventful pyramid would change nothing: a GPU computes it densely."""


def measure_detector(result: dict, where: torch.device, cfg: CfgNode | None = None, rounds: int = 15) -> None:
    """Add the detector's rows to a table's result, or the reason why there are none.

    Args:
        cfg: the detector; None: ViTDet-B at 1024 px.
    """
    reason = missing_packages(*DETECTRON2_NEEDS)
    if reason is not None:
        result["detector_reason"] = reason
        return
    from .. import modeling  # noqa: F401  (registers the detector)
    from ..benchmark.measure import moving_video
    from ..benchmark.variants import Variant, build_models, prepare
    from ..config_files import build_cfg

    cfg = cfg or build_cfg(CONFIG, ["MODEL.DEVICE", str(where)])
    video = moving_video(cfg.MODEL.VIT.IMG_SIZE)
    frames = [next(video) for _ in range(16)]
    variants = {name: Variant("dense" if r is None else "exact", "bfloat16", r, False) for name, r in WAYS.items()}
    models = build_models(cfg, list(variants.values()))

    numbers = itertools.count()  # all ways show one model the same video, whose frames have to be in order

    def call(number: int, name: str) -> None:
        model = models[variants[name].model_key]
        prepare(model, variants[name])
        model([{**frames[number % len(frames)], "frame_id": next(numbers)}])

    calls = {name: lambda number, name=name: call(number, name) for name in WAYS}
    with torch.no_grad():
        timings = time_in_turn(calls, where, rounds, 4, time.monotonic() + SECONDS)
    dense = timings["dense"].milliseconds()
    for name, timing in timings.items():
        computed_in = models[variants[name].model_key].vit.compute_dtype
        row = timing_row(
            "whole detector", cfg.MODEL.VIT.IMG_SIZE, str(computed_in).removeprefix("torch."), name, timing, dense
        )
        result["rows"].append(row)
        if row["dense_over_this"] is not None:
            result["measured"][f"detector {name} ratio"] = row["dense_over_this"]
