"""Token buffers: the last result of a token-wise function for every token (paper, section 4.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from .kernels import native
from .selection import Selection
from .state import StreamTensor


class TokenBuffer:
    """Holds b (B, N, D) and writes the rows that were recomputed this frame.

    The returned tensor is the buffer's own state: read it, never write to it.
    """

    def __init__(self, name: str, dtype: torch.dtype | None = None) -> None:
        self._b = StreamTensor(f"{name} buffer", dtype)

    def __call__(self, selection: Selection, rows: Tensor) -> Tensor:
        """Store rows (R, D) at their tokens; returns the values of all tokens, (B, N, D)."""
        b = self.values(selection, rows)
        selection.put(b, rows)
        return b

    def added_to(self, x: Tensor, selection: Selection, rows: Tensor) -> Tensor:
        """Store rows, and add the values of all tokens to x: (B, N, D) -> (B, N, D), a new tensor."""
        if selection.index is None:
            return x + self(selection, rows)
        b = self.values(selection, rows)
        if x.dtype == rows.dtype == torch.float32 and x.is_contiguous() and native.usable(x, b):
            return native.store_and_add(x, b, selection.index, rows)
        return x + self(selection, rows)

    def values(self, selection: Selection, rows: Tensor) -> Tensor:
        """The values (B, N, D) as they are before `rows` are stored; undefined for streams that never were."""
        return self.memory((selection.streams, selection.tokens, rows.shape[-1]), rows)

    def memory(self, shape: tuple[int, int, int], like: Tensor) -> Tensor:
        """The stored values (B, N, D), for a kernel that updates them by itself."""
        return self._b.slots(shape, like)

    def clear(self) -> None:
        self._b.clear()

    @property
    def nbytes(self) -> int:
        return self._b.nbytes
