"""Exact incremental attention of global blocks: what `tokenwise` gives, from O(N D) state and O(r N) work.

For every query i the unnormalised sum and the normaliser of its softmax are kept, relative to a fixed reference m_i:

    U_i = sum_j exp(S_ij - m_i) v_j        Z_i = sum_j exp(S_ij - m_i)        output O_i = U_i / Z_i

When keys and values change, each unchanged query takes out their old terms and adds the new ones (*signed delta keys*);
changed queries are recomputed over all keys. Up to rounding this is dense attention over the buffered tokens.

Rounding is watched query by query. Sums that were just computed have a relative error of about (16 + |m_i|) 2^-24: a
score S is rounded in proportion to its size, and exp passes that on as a relative error. `drift` bounds the error of U
and Z as a multiple of this. A query whose bound exceeds `DRIFT_LIMIT`, because much of its mass cancelled or because
many frames went by, is recomputed; so is one that meets a score far above its reference. The result is therefore within

    16 (16 + max |S|) 2^-24     relative to the values, 1.5e-5 for small scores and 5e-3 for scores of 5,000,

of dense attention, whose own rounding has the second factor too. The C++ kernels compute a score with the same bits
whenever they compute it, so with them the error does not grow with the scores.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import ops
from ..buffer import TokenBuffer
from ..frame import AttentionWork, Frame
from ..selection import Selection
from .core import AttentionSpec
from .layout import AttentionLayout


class ExactAttention:
    """`exact`: see the module's description."""

    def __init__(self, name: str, state_dtype: torch.dtype | None = None) -> None:
        """
        Args:
            state_dtype: storage type of queries, keys and values; the sums stay in float32, or float64 for such tokens.
        """
        self._name = name
        self._state_dtype = state_dtype
        self._qkv = TokenBuffer(f"{name}.qkv", state_dtype)

    def __call__(
        self, spec: AttentionSpec, rows: Tensor, selection: Selection, layout: AttentionLayout, frame: Frame
    ) -> tuple[Tensor, AttentionWork]:
        dim = rows.shape[-1] // 3
        store = self._store if layout.pool == 1 else self._store_and_pool
        qkv, kv, *changed = store(rows, selection, layout, frame, spec.dtype)
        change = [] if selection.index is None else [selection.index, selection.offsets, *changed]
        state = self._sums(spec, dim // spec.heads, layout.tokens, rows, frame)
        executed = ops.update_sums(qkv[..., :dim], kv, change, state, *spec.arguments(layout))
        sent = spec.sent_dtype(self._state_dtype, qkv)
        return ops.divide(*state[:2], sent), AttentionWork("exact", changed[1], executed)

    def _sums(self, spec: AttentionSpec, channels: int, tokens: int, rows: Tensor, frame: Frame) -> list[Tensor]:
        """U (B, H, N, d), and Z, m and the error bound (B, H, N)."""
        dtype = torch.float64 if spec.dtype is torch.float64 else torch.float32
        parts = {"sums": (channels,), "normalisers": (), "references": (), "drift": ()}
        return [
            frame.slots(f"{self._name}.{part}", (spec.heads, tokens, *size), rows, dtype)
            for part, size in parts.items()
        ]

    def _store(
        self, rows: Tensor, selection: Selection, layout: AttentionLayout, frame: Frame, dtype: torch.dtype
    ) -> tuple:
        """Store new rows.

        Returns:
            Queries, keys and values (B, N, 3D); keys and values as queries see them (B, S, 2D); which of these changed,
            (K,) and where each stream's begin; and what they were before, (K, 2D). The last three are None for
            everything.
        """
        dim = rows.shape[-1] // 3
        qkv, old = self._qkv.replace(rows, selection, frame, dtype, dim)
        return qkv, qkv[..., dim:], selection.index, selection.offsets, old

    def _store_and_pool(
        self, rows: Tensor, selection: Selection, layout: AttentionLayout, frame: Frame, dtype: torch.dtype
    ) -> tuple:
        """The same where keys and values are averaged over cells of tokens."""
        dim = rows.shape[-1] // 3
        kv = frame.slots(f"{self._name}.pooled", (layout.keys, 2 * dim), rows, self._state_dtype or dtype)
        if selection.index is None:
            qkv = self._qkv.store(rows, selection, frame, dtype)
            kv.copy_(layout.pool_keys(qkv[..., dim:]))
            return qkv, kv, None, None, None
        cells, offsets = changed_cells(selection, layout)
        flat = kv.flatten(0, 1)
        old = flat.index_select(0, cells)
        qkv = self._qkv.store(rows, selection, frame, dtype)
        stream, cell = cells // layout.keys, cells % layout.keys
        members = layout.cell_members(cell) + stream[:, None] * layout.tokens
        flat.index_copy_(0, cells, qkv.flatten(0, 1)[members, dim:].mean(dim=1))
        return qkv, kv, cells, offsets, old


def changed_cells(selection: Selection, layout: AttentionLayout) -> tuple[Tensor, Tensor]:
    """Pooled keys that change with the selected tokens: places (K,) in B * S, ascending, and where each stream's
    begin."""
    index = selection.index if selection.used is None else selection.index[: int(selection.used)]
    stream, token = index // layout.tokens, index % layout.tokens
    cells = (stream * layout.keys + layout.cell_of(token)).unique()
    counts = torch.bincount(cells // layout.keys, minlength=selection.streams)
    return cells, torch.cat([counts.new_zeros(1), counts.cumsum(0)])
