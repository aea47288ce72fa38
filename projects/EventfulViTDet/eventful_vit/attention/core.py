"""The attention core of a block: what lies between queries, keys and values and the output projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .. import ops
from ..frame import AttentionWork, Frame
from ..selection import Selection
from .layout import AttentionLayout


@dataclass(frozen=True)
class AttentionSpec:
    """What a core needs to know of a block."""

    heads: int
    scale: float
    dtype: torch.dtype
    """Type of the tokens, and so of sums (float64 only for tokens of float64), and of state that is given none."""
    tables: tuple[Tensor, ...] = ()
    """Relative positions along rows and columns, (2h - 1, d) and (2w - 1, d) or of another size; empty without."""
    padding: Tensor | None = None
    """Queries, keys and values of the tokens that fill up windows, (3D,); None: zeros."""

    def arguments(self, layout: AttentionLayout) -> tuple:
        """What the attention operators have in common."""
        return self.tables, self.heads, self.scale, (*layout.grid, layout.window, layout.pool)

    def sent_dtype(self, state_dtype: torch.dtype | None, like: Tensor) -> torch.dtype:
        """Type of a result that goes through a gate only: a GPU's gates read what is kept, a CPU's the tokens' type."""
        return state_dtype or self.dtype if ops.gpu.serves(like) else self.dtype

    def attend(self, qkv: Tensor, dtype: torch.dtype, layout: AttentionLayout) -> Tensor:
        """Dense attention of all tokens: (B, N, 3D) -> (B, N, D) of a type."""
        return ops.attend(qkv, self.padding, *self.arguments(layout), dtype)


class AttentionCore(Protocol):
    """How much of a block's attention a frame recomputes."""

    def __call__(
        self, spec: AttentionSpec, rows: Tensor, selection: Selection, layout: AttentionLayout, frame: Frame
    ) -> tuple[Tensor, AttentionWork]:
        """Attention over the buffered tokens.

        Args:
            rows: new queries, keys and values of the selected tokens, (R, 3D), in the type of the products.

        Returns:
            (B, N, D), before the output projection; read it, never write to it. And what was executed.
        """
