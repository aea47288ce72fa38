"""Token buffers: the last result of a token-wise function for every token (paper, section 4.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from . import ops
from .frame import Frame
from .selection import Selection


class TokenBuffer:
    """Holds b (B, N, D) and writes the rows that were recomputed this frame.

    The returned tensor is state: read it, never write to it.
    """

    def __init__(self, name: str, state_dtype: torch.dtype | None = None) -> None:
        """
        Args:
            state_dtype: storage type; None keeps that of the tokens.
        """
        self._name = f"{name}.buffer"
        self._state_dtype = state_dtype

    def _values(self, rows: Tensor, selection: Selection, frame: Frame, dtype: torch.dtype) -> Tensor:
        """The values (B, N, D) as they are before `rows` are stored."""
        return frame.slots(self._name, (selection.tokens, rows.shape[-1]), rows, self._state_dtype or dtype)

    def store(self, rows: Tensor, selection: Selection, frame: Frame, dtype: torch.dtype) -> Tensor:
        """Store rows (R, D) at their tokens; returns the values of all tokens, (B, N, D).

        Args:
            dtype: type of the tokens, whatever the rows' is.
        """
        b = self._values(rows, selection, frame, dtype)
        ops.store(b, selection.index, rows, selection.used)
        return b

    def replace(
        self, rows: Tensor, selection: Selection, frame: Frame, dtype: torch.dtype, first: int
    ) -> tuple[Tensor, Tensor | None]:
        """Store rows; also returns what they replace from column `first` on, (R, D - first), None for everything."""
        if selection.index is None:
            return self.store(rows, selection, frame, dtype), None
        b = self._values(rows, selection, frame, dtype)
        return b, ops.replace(b, selection.index, rows, selection.used, first)

    def add_to(self, x: Tensor, rows: Tensor, selection: Selection, frame: Frame) -> None:
        """Store rows, and add the values of all tokens to x (B, N, D) in place."""
        ops.add(x, self.store(rows, selection, frame, x.dtype))
