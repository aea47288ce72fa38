"""Windowed attention that recomputes only windows with a changed token; in the others, nothing it reads has changed."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import ops
from ..buffer import TokenBuffer
from ..frame import AttentionWork, Frame
from ..selection import Selection
from .core import AttentionSpec
from .layout import AttentionLayout


class TouchedWindowsAttention:
    """`exact` in windowed blocks: equal to `tokenwise`, for the cost of the windows that the selection touches.

    The touched windows of all streams are computed together.
    """

    def __init__(self, name: str, state_dtype: torch.dtype | None = None) -> None:
        self._name = name
        self._state_dtype = state_dtype
        self._qkv = TokenBuffer(f"{name}.qkv", state_dtype)

    def __call__(
        self, spec: AttentionSpec, rows: Tensor, selection: Selection, layout: AttentionLayout, frame: Frame
    ) -> tuple[Tensor, AttentionWork]:
        qkv = self._qkv.store(rows, selection, frame, spec.dtype)
        size = (layout.tokens, rows.shape[-1] // 3)
        output = frame.slots(f"{self._name}.attention", size, rows, self._state_dtype or spec.dtype)
        sent = spec.sent_dtype(self._state_dtype, output)
        if selection.index is None:
            output.copy_(spec.attend(qkv, spec.dtype, layout))
            return output.to(sent), AttentionWork("dense")
        chosen = (selection.index, selection.used)
        touched = ops.attend_windows(qkv, *chosen, output, spec.padding, *spec.arguments(layout))
        return output.to(sent), AttentionWork("windows", executed=touched)
