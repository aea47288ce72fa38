"""Token gates: compare the current tokens with a reference and let the changed ones through (paper, section 4.1)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from . import ops
from .frame import Frame, GateTrace
from .layers import call, norm_arguments
from .selection import Selection

GateReference = Literal["last-sent", "previous-frame"]
GATE_REFERENCES: tuple[GateReference, ...] = ("last-sent", "previous-frame")


class TokenGate:
    """Selects the tokens of c = norm(x) that moved away from the reference u, and updates u.

    With the reference `last-sent` (the paper's gate), u[M] <- c[M] for the selected set M only: what is not sent on stays
    in the error until it is. With `previous-frame` (the STGT baseline), u <- c for all tokens: slow changes never add up.
    """

    def __init__(self, name: str, reference: GateReference = "last-sent", state_dtype: torch.dtype | None = None) -> None:
        """
        Args:
            name: such as "blocks.0.qkv".
            state_dtype: storage type of the reference; None keeps that of the tokens.
        """
        self.name = name
        self._last_sent = reference == "last-sent"
        self._state_dtype = state_dtype

    def __call__(self, x: Tensor, frame: Frame, norm: nn.Module | None = None) -> tuple[Selection, Tensor]:
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
        selection, norms = self._choose(x, u, affine, frame)
        frame.trace.gates[self.name] = GateTrace(selection, norms)
        return selection, self._send(x, u, affine, selection)

    def reference(self, x: Tensor, frame: Frame) -> Tensor:
        """The values (B, N, D) that tokens like x are compared with."""
        return frame.slots(f"{self.name}.reference", x.shape[1:], x, self._state_dtype)

    def _choose(self, x: Tensor, u: Tensor, affine: tuple, frame: Frame) -> tuple[Selection, Tensor | None]:
        streams, tokens, _ = x.shape
        if all(frame.flush):
            return Selection.everything(streams, tokens), None
        norms = ops.error_norms(x, u, *affine)
        policy = frame.policy.for_gate(self.name, tokens)
        if any(frame.flush):  # everything of these streams, and what the policy chooses of the others
            fresh = torch.tensor(frame.flush, device=norms.device)[:, None]
            return Selection.from_mask(policy.choose(norms) | fresh), norms.masked_fill(fresh, torch.inf)
        count = policy.fixed_count(tokens)
        if count is None:
            return Selection.from_mask(policy.choose(norms)), norms
        return Selection.largest(norms, count), norms

    def _send(self, x: Tensor, u: Tensor, affine: tuple, selection: Selection) -> Tensor:
        """The selected rows of c, (R, D); c also becomes the reference, in these rows or in all."""
        if self._last_sent and selection.index is not None:
            return ops.send(x, u, selection.index, *affine)
        c = ops.gating.normalise(x, *affine)
        u.copy_(c)
        return selection.take(c)


class DeltaGate:
    """A gate with a forced set M that also returns how far the members moved: e[M] = c[M] - u[M], before u[M] <- c[M]."""

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
