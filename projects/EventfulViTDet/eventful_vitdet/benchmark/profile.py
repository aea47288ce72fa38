"""Where the time of one eventful frame goes, by part of the backbone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import nn

from ..eventful import block, gate, vit
from ..eventful.attention import exact, layer, windows
from ..eventful.attention.keys import KeyStore
from ..eventful.buffer import TokenBuffer
from ..eventful.linear import Linear
from ..eventful.native_frame import NativeFrames
from ..modeling.backbone import synchronize
from .attribute_swap import swapped

PARTS: dict[str, list[tuple[type, str]]] = {
    "linear layers, GELU": [(Linear, "forward"), (Linear, "activated")],
    "embedding": [(vit.EventfulViT, "_embed")],
    "gates": [(gate.TokenGate, "__call__")],
    "buffers, residuals": [(TokenBuffer, "__call__"), (TokenBuffer, "added_to"), (KeyStore, "update")],
    "global attention: sums": [(exact.ExactAttention, "__call__")],
    "windowed attention": [(windows.TouchedWindowsAttention, "__call__")],
    "dense attention": [(layer.Attention, "attend")],
    "rest of the blocks": [(block.Block, "forward_eventful"), (block.Block, "forward")],
}


def profile_frame(model: nn.Module, frame: dict, device: torch.device) -> dict[str, float]:
    """Run one frame and return the seconds of each part, without those of the parts inside it.

    The parts are called one by one, also where the kernels could run all blocks in one call. Reading the clock at every
    call takes some of the time that it shows.
    """
    timer = _Timer(device)
    with ExitStack() as stack, torch.no_grad():
        for part, functions in PARTS.items():
            for owner, name in functions:
                stack.enter_context(swapped(owner, name, timer.wrap(part, owner.__dict__[name])))
        stack.enter_context(swapped(NativeFrames, "suits", lambda *args: False))
        model([frame])
    seconds = dict(timer.seconds)
    seconds["rest of the backbone"] = model.backbone_seconds - sum(seconds.values())
    return seconds


class _Timer:
    def __init__(self, device: torch.device) -> None:
        self.seconds: Counter = Counter()
        self._device = device
        self._inner = [0.0]  # seconds of nested calls, by depth

    def wrap(self, part: str, original: Callable | classmethod) -> Callable | classmethod:
        if isinstance(original, classmethod):
            return classmethod(self.wrap(part, original.__func__))

        def timed(*args, **kwargs):
            synchronize(self._device)
            start = time.perf_counter()
            self._inner.append(0.0)
            try:
                return original(*args, **kwargs)
            finally:
                synchronize(self._device)
                elapsed = time.perf_counter() - start
                self.seconds[part] += elapsed - self._inner.pop()
                self._inner[-1] += elapsed

        return timed
