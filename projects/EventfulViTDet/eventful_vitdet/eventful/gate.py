"""Token gates: compare the current tokens with a reference and let the changed ones through (paper, section 4.1)."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from .kernels import native
from .selection import Selection
from .state import StreamTensor
from .step import Step

GateReference = Literal["last-sent", "previous-frame"]
GATE_REFERENCES: tuple[GateReference, ...] = ("last-sent", "previous-frame")


class GateInput:
    """The current tokens c (B, N, D) of a gate, c = norm(x), of which all that is needed may be some rows.

    Where there are kernels, a layer norm is evaluated inside the comparison and again for the selected rows, and the
    normalised tokens are never all in memory.
    """

    def __init__(self, x: Tensor, norm: nn.LayerNorm | None = None) -> None:
        self.x = x
        self.norm = norm

    @cached_property
    def values(self) -> Tensor:
        """All of c."""
        return self.x if self.norm is None else self.norm(self.x)

    def error_norms(self, u: Tensor) -> Tensor:
        """|c - u| of every token, (B, N)."""
        if self.fused(u):
            return native.error_norms(self.x, u, self.norm)
        return torch.linalg.vector_norm(self.values - u, dim=-1, dtype=torch.float32)

    def send(self, selection: Selection, u: Tensor) -> Tensor:
        """The selected rows of c, (R, D), which become those of the reference: u[M] <- c[M]."""
        if selection.index is not None and self.fused(u):
            return native.take_rows(self.x, u, selection.index, self.norm)
        rows = selection.take(self.values)
        selection.put(u, rows)
        return rows

    def fused(self, u: Tensor) -> bool:
        """Whether the kernels work on these tokens and this reference."""
        return (
            self.x.dtype == torch.float32
            and self.x.is_contiguous()
            and u.is_contiguous()
            and native.usable(self.x, u)
            and native.knows_norm(self.norm)
        )


class TokenGate:
    """Selects the tokens of c that moved away from the reference u, and updates u.

    With the reference `last-sent` (the paper's gate), u[M] <- c[M] for the selected set M alone: what is not sent on
    stays in the error until it is. With `previous-frame` (the STGT baseline), u <- c for all tokens: slow changes
    never add up.

    The gate keeps a copy; the tensor it is given may be changed afterwards.
    """

    def __init__(self, name: str, reference: GateReference = "last-sent", dtype: torch.dtype | None = None) -> None:
        self.reference = reference
        self._u = StreamTensor(f"{name} reference", dtype)
        self.norms: Tensor | None = None
        """Error norms (B, N) of the last frame; rows of streams that flushed are infinite, None if all did."""
        self.selection: Selection | None = None
        """Tokens selected in the last frame."""

    def __call__(self, c: GateInput | Tensor, step: Step) -> tuple[Selection, Tensor]:
        """Gate one frame.

        Args:
            c: current tokens, (B, N, D).
            step: the frame's policy, flushes and counts.

        Returns:
            The selection M, and its tokens packed, (R, D).
        """
        if isinstance(c, Tensor):
            c = GateInput(c)
        u = self.memory(c.x)
        selection, rows = self._choose_and_send(c, u, step)
        self.selection = selection
        if step.counts is not None:
            step.count("gate", [0 if flush else u[0].numel() for flush in step.flush])
        return selection, rows

    def memory(self, x: Tensor) -> Tensor:
        """The reference for tokens like x (B, N, D), for a kernel that gates by itself."""
        return self._u.slots(tuple(x.shape), x)

    def _choose_and_send(self, c: GateInput, u: Tensor, step: Step) -> tuple[Selection, Tensor]:
        if any(step.flush):
            selection = self._flush(c, u, step)
        else:
            streams, tokens, _ = c.x.shape
            count = step.policy.fixed_count(tokens)
            if count is None:
                self.norms = c.error_norms(u)
                selection = Selection.from_mask(step.policy.choose(self.norms))
            elif self.reference == "last-sent" and count < tokens and c.fused(u):
                self.norms, index, rows = native.gate(c.x, u, c.norm, count)
                return Selection(streams, tokens, (count,) * streams, index), rows
            else:
                self.norms = c.error_norms(u)
                selection = Selection.largest(self.norms, count)
        if self.reference == "last-sent":
            return selection, c.send(selection, u)
        rows = selection.take(c.values)
        u.copy_(c.values)
        return selection, rows

    def _flush(self, c: GateInput, u: Tensor, step: Step) -> Selection:
        """Everything of streams that flush, and what the policy chooses of the others."""
        if all(step.flush):
            self.norms = None
            return Selection.everything(*c.x.shape[:2])
        norms = c.error_norms(u)
        fresh = torch.tensor(step.flush, device=norms.device)[:, None]
        self.norms = norms.masked_fill(fresh, torch.inf)
        return Selection.from_mask(step.policy.choose(norms) | fresh)

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
