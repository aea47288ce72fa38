"""Token gates: compare the current tokens with a reference and let the changed ones through (paper, section 4.1)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .selection import Selection
from .state import StreamTensor
from .step import Step

GateReference = Literal["last-sent", "previous-frame"]
GATE_REFERENCES: tuple[GateReference, ...] = ("last-sent", "previous-frame")


class TokenGate:
    """Selects the tokens of c that moved away from the reference u, and updates u.

    With the reference `last-sent` (the paper's gate), u[M] <- c[M] for the selected set M alone: what is not sent on
    stays in the error until it is. With `previous-frame` (the STGT baseline), u <- c for all tokens: slow changes
    never add up.

    The gate keeps a copy; the tensor it is given may be changed afterwards.
    """

    def __init__(self, name: str, reference: GateReference = "last-sent") -> None:
        self.reference = reference
        self._u = StreamTensor(f"{name} reference")
        self.norms: Tensor | None = None
        """Error norms (B, N) of the last frame; rows of streams that flushed are infinite, None if all did."""
        self.selection: Selection | None = None
        """Tokens selected in the last frame."""

    def __call__(self, c: Tensor, step: Step) -> tuple[Selection, Tensor]:
        """Gate one frame.

        Args:
            c: current tokens, (B, N, D).
            step: the frame's policy, flushes and counts.

        Returns:
            The selection M, and its tokens packed, (R, D).
        """
        u = self._u.slots(tuple(c.shape), c)
        selection = self.selection = self._select(c, u, step)
        rows = selection.take(c)
        if self.reference == "previous-frame":
            u.copy_(c)
        else:
            selection.put(u, rows)
        step.count("gate", [0 if flush else u[0].numel() for flush in step.flush])
        return selection, rows

    def _select(self, c: Tensor, u: Tensor, step: Step) -> Selection:
        if all(step.flush):
            self.norms = None
            return Selection.everything(*c.shape[:2])
        norms = torch.linalg.vector_norm(c - u, dim=-1, dtype=torch.float32)
        mask = step.policy.choose(norms)
        if any(step.flush):
            fresh = torch.tensor(step.flush, device=c.device)
            mask = mask | fresh[:, None]
            norms = norms.masked_fill(fresh[:, None], torch.inf)
        self.norms = norms
        return Selection.from_mask(mask)

    def clear(self) -> None:
        self._u.clear()
        self.norms = self.selection = None

    @property
    def nbytes(self) -> int:
        return self._u.nbytes


class DeltaGate:
    """A gate with a forced set M that also returns how far the members moved: e[M] = c[M] - u[M], before u[M] <- c[M].

    It works on one stream's slice u of a state tensor that its owner allocated.
    """

    def __init__(self, dim: int) -> None:
        """
        Args:
            dim: the dimension along which M selects (rows or columns).
        """
        self.dim = dim

    def __call__(self, c: Tensor, u: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Gate one stream.

        Args:
            c: current values; selected along `dim`.
            u: reference of the same shape, updated in place.
            index: the set M, (r,).

        Returns:
            c[M] and c[M] - u[M].
        """
        current = c.index_select(self.dim, index).to(u.dtype)
        delta = current - u.index_select(self.dim, index)
        u.index_copy_(self.dim, index, current)
        return current, delta
