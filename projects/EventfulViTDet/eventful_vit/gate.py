"""Token gates: compare the current tokens with a reference and let the changed ones through (paper, section 4.1)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from . import ops
from .frame import Frame, GateBudget, GateTrace
from .layers import Norm, call, norm_arguments
from .selection import Selection

GateReference = Literal["last-sent", "previous-frame"]
GATE_REFERENCES: tuple[GateReference, ...] = ("last-sent", "previous-frame")


class TokenGate:
    """Selects the tokens of c = norm(x) that moved away from the reference u, and updates u.

    With the reference `last-sent` (the paper's gate), u[M] <- c[M] for the selected set M only: what is not sent on
    stays in the error until it is. With `previous-frame` (the STGT baseline), u <- c for all tokens: slow changes never
    add up.
    """

    def __init__(
        self, name: str, reference: GateReference = "last-sent", state_dtype: torch.dtype | None = None
    ) -> None:
        """
        Args:
            name: such as "blocks.0.qkv".
            state_dtype: storage type of the reference; None keeps that of the tokens.
        """
        self.name = name
        self._last_sent = reference == "last-sent"
        self._state_dtype = state_dtype

    def __call__(self, x: Tensor, frame: Frame, norm: Norm | None = None) -> tuple[Selection, Tensor]:
        """Gate one frame.

        Args:
            x: current tokens, (B, N, D), contiguous.
            norm: what normalises them first. A plain layer norm is evaluated within the comparison and again for the
                selected rows; the normalised tokens are then never all in memory.

        Returns:
            The selection M, and its tokens packed, (R, D).
        """
        affine = norm_arguments(norm)
        if affine is None:
            x, affine = call(norm, x), (None, None, None)
        u = self.reference(x, frame)
        selection, norms, rows = self._choose_and_send(x, u, affine, frame)
        frame.trace.gates[self.name] = GateTrace(selection, norms)
        return selection, rows

    def reference(self, x: Tensor, frame: Frame) -> Tensor:
        """The values (B, N, D) that tokens like x are compared with."""
        return frame.slots(f"{self.name}.reference", x.shape[1:], x, self._state_dtype)

    def _choose_and_send(
        self, x: Tensor, u: Tensor, affine: tuple, frame: Frame
    ) -> tuple[Selection, Tensor | None, Tensor]:
        """The selection M, the error norms, and the rows c[M], with which the reference is brought up to date."""
        streams, tokens, _ = x.shape
        if frame.budget is not None:
            return self._by_numbers(x, u, affine, frame.budget[self.name])
        if all(frame.flush):
            return Selection.everything(streams, tokens), None, ops.send(x, u, None, *affine)
        policy = frame.policy.for_gate(self.name, tokens)
        limits = policy.limits(tokens)
        if self._last_sent and not any(frame.flush) and limits is not None and streams * limits[0] < streams * tokens:
            return self._by_numbers(x, u, affine, GateBudget.of(*limits, streams, x.device))
        norms = ops.error_norms(x, u, *affine)
        chosen = policy.choose(norms)
        if any(frame.flush):  # everything of these streams
            flush = torch.tensor(frame.flush, device=norms.device)[:, None]
            chosen, norms = chosen | flush, norms.masked_fill(flush, torch.inf)
        selection = Selection.from_mask(chosen)
        if self._last_sent:
            return selection, norms, ops.send(x, u, selection.index, *affine)
        return selection, norms, selection.take(ops.send(x, u, None, *affine).view(x.shape))

    def _by_numbers(
        self, x: Tensor, u: Tensor, affine: tuple, budget: GateBudget
    ) -> tuple[Selection, Tensor | None, Tensor]:
        norms, index, offsets, rows = ops.gate(x, u, *budget.numbers, budget.capacity, *affine)
        used = None if budget.is_full else offsets[-1]
        return Selection(*x.shape[:2], index, offsets, used), norms, rows

    def can_take_numbers(self) -> bool:
        """Whether this kind of gate may be given a `GateBudget`."""
        return self._last_sent


class DeltaGate:
    """A gate with a forced set M that also returns how far the members moved: e[M] = c[M] - u[M], before u[M] <-
    c[M]."""

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
