"""Token gates: compare the current tokens with a reference and let the changed ones through (paper, section 4.1)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from . import ops
from .frame import Frame, GateBudget, GateTrace
from .layers import Norm, call, norm_arguments
from .policies import choice_of, limits_of
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

    def __call__(
        self, x: Tensor, frame: Frame, norm: Norm | None = None, added: Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> tuple[Selection, Tensor]:  # fmt: skip
        """Gate one frame.

        Args:
            x: current tokens, (B, N, D), contiguous.
            norm: what normalises them first. A plain layer norm is evaluated within the comparison and again for the
                selected rows; the normalised tokens are then never all in memory.
            added: (B, N, D), what is added to x in place before all else.
            dtype: type of the packed tokens; None: that of x.

        Returns:
            The selection M, and its tokens packed, (R, D).
        """
        affine, budget = norm_arguments(norm), self._budget(x, frame)
        if added is not None and (affine is None or budget is None):
            ops.add(x, added)
            added = None
        if affine is None:
            x, affine = call(norm, x), (None, None, None)
        u = self.reference(x, frame)
        if budget is None:
            selection, norms, rows = self._choose_and_send(x, u, affine, dtype, frame)
        else:
            norms, index, offsets, rows = ops.gate(x, u, *budget.numbers, budget.capacity, *affine, added, dtype)
            selection = Selection(*x.shape[:2], index, offsets, None if budget.is_full else offsets[-1])
        frame.trace.gates[self.name] = GateTrace(selection, norms)
        return selection, rows

    def reference(self, x: Tensor, frame: Frame) -> Tensor:
        """The values (B, N, D) that tokens like x are compared with."""
        return frame.slots(f"{self.name}.reference", x.shape[1:], x, self._state_dtype)

    def _budget(self, x: Tensor, frame: Frame) -> GateBudget | None:
        """What may be chosen, where the policy is two numbers; None: as the policy and flushes say."""
        if frame.budget is not None:
            return frame.budget[self.name]
        if any(frame.flush) or not self._last_sent:
            return None
        streams, tokens, _ = x.shape
        limits = limits_of(frame.policy.for_gate(self.name, tokens), tokens)
        if limits is None or limits[0] >= tokens:
            return None
        return GateBudget.of(*limits, streams, x.device)

    def _choose_and_send(
        self, x: Tensor, u: Tensor, affine: tuple, dtype: torch.dtype | None, frame: Frame
    ) -> tuple[Selection, Tensor | None, Tensor]:
        """The selection M, the error norms, and the rows c[M], with which the reference is brought up to date."""
        streams, tokens, _ = x.shape
        if all(frame.flush):
            return Selection.everything(streams, tokens), None, ops.send(x, u, None, *affine, dtype)
        norms = ops.error_norms(x, u, *affine)
        chosen = choice_of(frame.policy.for_gate(self.name, tokens), norms)
        if any(frame.flush):  # everything of these streams
            flush = torch.tensor(frame.flush, device=norms.device)[:, None]
            chosen, norms = chosen | flush, norms.masked_fill(flush, torch.inf)
        selection = Selection.from_mask(chosen)
        if self._last_sent:
            return selection, norms, ops.send(x, u, selection.index, *affine, dtype)
        return selection, norms, selection.take(ops.send(x, u, None, *affine, dtype).view(x.shape))

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
