"""What to measure next where no budget reaches a target: fewer tokens, an eventful pyramid, smaller frames, models."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from detectron2.config import CfgNode

from ..controllers import QUALITY_FLOOR
from ..known_models import KNOWN_MODELS
from .measured_budgets import Measurement

SIDE_STEP = 64
"""Pixels. A multiple of the coarsest map's cells, so nothing is spent on padding."""
LEAST_SIDE = 256
"""Smaller frames are not proposed: too little can be seen."""
MARGIN = 0.9
"""Part of the target that an estimate aims at."""


@dataclass(frozen=True)
class Candidate:
    """Something to measure next."""

    what: str
    pairs: tuple[str, ...] = ()
    """KEY VALUE pairs of the configuration."""
    model: str = ""
    """Another model's name; "" for the same one."""
    budget: int | None = None
    """Tokens per gate to measure; None for the usual ones."""


def ways_out(measured: Measurement, cfg: CfgNode, model: str, target_ms: float) -> list[Candidate]:
    """What to measure next, the gentlest first. Estimates are called so; none of them was measured.

    Args:
        model: as the command was given it, a name or a file.
    """
    found = [_fewer_tokens(measured, target_ms), _pyramid(measured, cfg), _smaller_frames(measured, cfg, target_ms)]
    return [candidate for candidate in (*found, _smaller_model(model)) if candidate is not None]


def _fewer_tokens(measured: Measurement, target_ms: float) -> Candidate | None:
    """A budget down to a controller's floor. The Transformer's time falls at most in proportion to r."""
    fastest = measured.fastest
    least = max(1, round(QUALITY_FLOOR * measured.tokens))
    if fastest.r is None or fastest.r <= least:
        return None
    rest = fastest.milliseconds - fastest.backbone_milliseconds
    lowest_ms = rest + fastest.backbone_milliseconds * least / fastest.r
    return Candidate(f"r = {least}: {lowest_ms:.0f} ms or more", budget=least) if lowest_ms < target_ms else None


def _pyramid(measured: Measurement, cfg: CfgNode) -> Candidate | None:
    """The eventful pyramid, where what follows the Transformer takes most of a frame's time."""
    fastest = measured.fastest
    if cfg.MODEL.EVENTFUL.PYRAMID.ENABLED or not measured.device.startswith("cpu"):
        return None
    if fastest.backbone_milliseconds > fastest.milliseconds / 2:
        return None
    rest = fastest.milliseconds - fastest.backbone_milliseconds
    what = f"an eventful pyramid, as {rest:.0f} of {fastest.milliseconds:.0f} ms are pyramid, proposals and heads"
    return Candidate(what, ("MODEL.EVENTFUL.PYRAMID.ENABLED", "True"))


def _smaller_frames(measured: Measurement, cfg: CfgNode, target_ms: float) -> Candidate | None:
    """The next smaller long edge that reaches the target if time goes with area."""
    fastest, long_side = measured.fastest, max(measured.picture)
    scale = math.sqrt(min(1.0, MARGIN * target_ms / fastest.milliseconds))
    side = min(int(long_side * scale), long_side - 1) // SIDE_STEP * SIDE_STEP
    if side < LEAST_SIDE:
        return None
    about = fastest.milliseconds * (side / long_side) ** 2
    pairs = ["INPUT.MAX_SIZE_TEST", str(side)]
    if cfg.INPUT.MIN_SIZE_TEST > side:
        pairs += ["INPUT.MIN_SIZE_TEST", str(side)]
    if not cfg.MODEL.VIT.IMG_SIZE_HW:  # frames are padded to a square of that side
        pairs += ["MODEL.VIT.IMG_SIZE", str(side)]
    return Candidate(f"frames of {side} in place of {long_side} pixels: about {about:.0f} ms by area", tuple(pairs))


def _smaller_model(model: str) -> Candidate | None:
    """The next smaller one of the published models."""
    name = re.sub(r"\.yaml$", "", model)
    name = next((known.name for known in KNOWN_MODELS if name == known.name or name.endswith(f"/{known.name}")), "")
    size = {"h": "l", "l": "b"}.get(name[-1:])
    smaller = f"{name[:-1]}{size}" if size else name.replace("/cascade_", "/")
    if smaller == name or all(known.name != smaller for known in KNOWN_MODELS):
        return None
    return Candidate(f"the smaller model {smaller}", model=smaller)
