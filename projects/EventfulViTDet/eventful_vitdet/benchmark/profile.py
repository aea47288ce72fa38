"""Where the time of one frame goes, by groups of operators."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

import torch
from eventful_vit import encoder, ops
from torch import nn

from ..attribute_swap import swapped
from ..timing import run_timed, synchronize

PARTS: dict[str, tuple[str, ...]] = {
    "embedding": ("embed",),
    "linear layers, GELU": ("linear",),
    "dense attention": ("attend",),
    "global attention: sums": ("update_sums", "divide"),
    "windowed attention": ("attend_windows",),
    "gates, layer norms": ("gate", "error_norms", "send", "normalise"),
    "buffers, residuals": ("store", "replace", "add"),
}


def profile_frame(model: nn.Module, frame: dict, device: torch.device) -> dict[str, float]:
    """Run one frame, operator by operator, and return the seconds of each part.

    Reading the clock at every call takes some of the time that it shows.
    """
    seconds: Counter = Counter()
    with ExitStack() as stack:
        stack.enter_context(swapped(encoder, "TAPED_VALUES", -1))  # a tape would not call them
        for part, names in PARTS.items():
            for name in names:
                stack.enter_context(swapped(ops, name, _timed(getattr(ops, name), part, seconds, device)))
        call = run_timed(model, [frame], device)
    seconds["rest of the backbone"] = call.backbone_seconds - sum(seconds.values())
    return dict(seconds)


def _timed(operator: Callable, part: str, seconds: Counter, device: torch.device) -> Callable:
    def run(*args):
        synchronize(device)
        start = time.perf_counter()
        result = operator(*args)
        synchronize(device)
        seconds[part] += time.perf_counter() - start
        return result

    return run
