"""Exact incremental attention of global blocks: what `tokenwise` gives, from O(N D) state and O(r N) work.

For every query i the unnormalised sum and the normaliser of its softmax are kept, relative to a fixed reference m_i:

    U_i = sum_j exp(S_ij - m_i) v_j        Z_i = sum_j exp(S_ij - m_i)        output O_i = U_i / Z_i

When keys and values change, each unchanged query takes out their old terms and adds the new ones (*signed delta keys*);
changed queries are recomputed over all keys. Up to rounding this is dense attention over the buffered tokens.

Rounding is watched query by query. `drift` bounds the relative error of U and Z in float32 rounding steps (2^-24). A
query whose bound has grown too large, because much of its mass cancelled or because many frames went by, is recomputed
too, and so is one that meets a score far above its reference.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..selection import Selection
from ..state import StreamTensor
from ..step import Step
from .keys import KeyChange, KeyStore
from .layer import Attention
from .layout import AttentionLayout

DENSE_ABOVE = 0.4
"""Share of changed keys above which all queries are recomputed. By operations the two ways meet at one half."""
DRIFT_LIMIT = 256.0
"""Bound on the relative error of a query's sums, in steps of 2^-24: 1.5e-5."""
TERM_ROUNDING = 16.0
"""Rounding steps of one term exp(S - m) v: S itself is rounded, and exp passes that on as a relative error."""
SCORE_LIMIT = 30.0
"""A score this far above its query's reference (a factor of 1e13) asks for a new one, well before exp overflows."""
TILE_SCORES = 2**20
"""Scores computed at a time: 4 MB, so that they are used while they are in cache."""


class ExactAttention:
    """`exact`: see the module's description. The streams of a batch are updated one after the other."""

    PARTS = ("sums", "normalisers", "references", "drift", "bias rows", "bias columns")

    def __init__(self, name: str, state_dtype: torch.dtype | None = None) -> None:
        self.keys = KeyStore(name, state_dtype)
        self._states = {part: StreamTensor(f"{name} {part}", torch.float32) for part in self.PARTS}

    def __call__(
        self, layer: Attention, rows: Tensor, selection: Selection, layout: AttentionLayout, step: Step
    ) -> Tensor:
        changes = self.keys.update(rows, selection, layout, step.flush)
        outputs = []
        for stream, change in enumerate(changes):
            tensors = self._slots(layer, layout, selection.streams, stream, rows)
            work = StreamAttention(layer, layout, *self.keys.read(layout, stream, layer.num_heads), *tensors)
            if change is None or len(change.keys) > DENSE_ABOVE * layout.keys:
                work.recompute_all(None if change is None else change.tokens)
            else:
                work.update(change)
            outputs.append(work.output())
            for category, macs in work.macs.items():
                step.count_stream(category, stream, macs)
        return torch.stack(outputs).to(rows.dtype)

    def _slots(
        self, layer: Attention, layout: AttentionLayout, streams: int, stream: int, like: Tensor
    ) -> list[Tensor]:
        """One stream's slices of the state, in the order of PARTS."""
        per_query = ((layer.proj.in_features // layer.num_heads,), (), (), (), *((n,) for n in layout.key_grid))
        parts = self.PARTS if layer.use_rel_pos else self.PARTS[:4]
        return [
            self._states[part].slots((streams, layer.num_heads, layout.tokens, *size), like)[stream]
            for part, size in zip(parts, per_query)
        ]

    def clear(self) -> None:
        self.keys.clear()
        for state in self._states.values():
            state.clear()

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + sum(state.nbytes for state in self._states.values())


class StreamAttention:
    """The work of one frame on one stream's state, which it updates in place. All tensors are float32."""

    def __init__(
        self,
        layer: Attention,
        layout: AttentionLayout,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        sums: Tensor,
        normalisers: Tensor,
        references: Tensor,
        drift: Tensor,
        bias_rows: Tensor | None = None,
        bias_columns: Tensor | None = None,
    ) -> None:
        """
        Args:
            q: unscaled queries, (H, N, d).
            k, v: all keys and values, (H, S, d), as of this frame.
            sums: U, (H, N, d).
            normalisers, references, drift: Z, m and the error bound, (H, N) each.
            bias_rows, bias_columns: position terms for key rows (H, N, a / p) and columns (H, N, b / p).
        """
        self.layer, self.layout = layer, layout
        self.q, self.k, self.v = q, k, v
        self.sums, self.normalisers, self.references, self.drift = sums, normalisers, references, drift
        self.bias_rows, self.bias_columns = bias_rows, bias_columns
        self.macs = {"matmul": 0, "position": 0, "add": 0, "accumulator": 0}

    def output(self) -> Tensor:
        """O = U / Z of all tokens, (N, D)."""
        return (self.sums / self.normalisers[..., None]).transpose(0, 1).flatten(1)

    def update(self, change: KeyChange) -> None:
        """Recompute changed queries, update the others by signed delta keys, and recompute those it is bad for."""
        unchanged = torch.ones(self.layout.tokens, dtype=torch.bool, device=self.q.device)
        unchanged[change.tokens] = False
        self._update_bias(change.tokens)
        self._recompute(change.tokens)
        unreliable = self._apply_deltas(unchanged.nonzero().squeeze(1), change)
        self._recompute(unreliable)

    def recompute_all(self, tokens: Tensor | None) -> None:
        """Recompute every query; `tokens` are those with new queries, None for all."""
        everything = torch.arange(self.layout.tokens, device=self.q.device)
        self._update_bias(everything if tokens is None else tokens)
        self._recompute(everything)

    def _update_bias(self, tokens: Tensor) -> None:
        """Position terms of changed queries; the others' stay as they are."""
        if self.bias_rows is None or self.bias_columns is None or not len(tokens):
            return
        rows, columns = self.layer.position_tables(self.layout)
        width = self.layout.grid[1]
        q = self.q[:, tokens].transpose(0, 1)
        self.bias_rows[:, tokens] = (q @ rows[tokens // width].mT.float()).transpose(0, 1)
        self.bias_columns[:, tokens] = (q @ columns[tokens % width].mT.float()).transpose(0, 1)
        self.macs["position"] += len(tokens) * sum(self.layout.key_grid) * self.layer.proj.in_features

    def _recompute(self, tokens: Tensor) -> None:
        """Compute the sums of these queries over all keys, with new references."""
        heads, keys, channels = self.k.shape
        for tile in tokens.split(max(1, TILE_SCORES // (heads * keys))):
            scores = (self.q[:, tile] * self.layer.scale) @ self.k.mT
            self._add_bias(scores, tile, None)
            reference = scores.amax(dim=-1)
            weights = scores.sub_(reference[..., None]).exp_()
            self.references[:, tile] = reference
            self.normalisers[:, tile] = weights.sum(dim=-1)
            self.sums[:, tile] = weights @ self.v
            self.drift[:, tile] = TERM_ROUNDING
        self.macs["matmul"] += 2 * heads * len(tokens) * keys * channels

    def _apply_deltas(self, tokens: Tensor, change: KeyChange) -> Tensor:
        """Exchange the terms of changed keys in the sums of unchanged queries.

        Returns:
            The queries whose sums are no longer to be relied upon.
        """
        heads, _, channels = self.k.shape
        changed = len(change.keys)
        if not changed:
            return tokens[:0]
        old_k, old_v = (part.unflatten(-1, (heads, -1)).transpose(0, 1).float() for part in change.old.chunk(2, -1))
        keys = torch.cat([self.k[:, change.keys], old_k], dim=1)
        values = torch.cat([self.v[:, change.keys], -old_v], dim=1)
        unreliable = []
        for tile in tokens.split(max(1, TILE_SCORES // (2 * heads * changed))):
            scores = (self.q[:, tile] * self.layer.scale) @ keys.mT
            self._add_bias(scores, tile, change.keys)
            scores -= self.references[:, tile, None]
            too_high = (scores[..., :changed].amax(dim=-1) > SCORE_LIMIT).any(dim=0)
            weights = scores.exp_()
            drifted = self._accumulate(tile, weights, values, changed)
            unreliable.append(tile[too_high | drifted])
        self.macs["matmul"] += 4 * heads * len(tokens) * changed * channels
        self.macs["accumulator"] += len(tokens) * heads * (channels + 1)
        return torch.cat(unreliable)

    def _accumulate(self, tile: Tensor, weights: Tensor, values: Tensor, changed: int) -> Tensor:
        """Add signed terms to the sums of a tile of queries; returns which of them drifted too far, (T,)."""
        added, removed = weights[..., :changed].sum(dim=-1), weights[..., changed:].sum(dim=-1)
        before = self.normalisers[:, tile]
        after = before + (added - removed)
        error = self.drift[:, tile] * before + TERM_ROUNDING * (added + removed) + after.abs()
        drift = error / after
        self.sums[:, tile] += weights @ values
        self.normalisers[:, tile] = after
        self.drift[:, tile] = drift
        # Written so that NaN, infinity and a normaliser below zero count as drifted.
        return ~((after > 0) & (drift <= DRIFT_LIMIT)).all(dim=0)

    def _add_bias(self, scores: Tensor, tile: Tensor, keys: Tensor | None) -> None:
        """Add position terms to scores (H, T, S), or to those of delta keys (H, T, 2 kk): new ones, then old ones."""
        if self.bias_rows is None or self.bias_columns is None:
            return
        rows, columns = self.bias_rows[:, tile], self.bias_columns[:, tile]
        if keys is None:
            spread = scores.unflatten(-1, self.layout.key_grid)
            spread += rows[..., :, None]
            spread += columns[..., None, :]
            self.macs["add"] += 2 * scores.numel()
            return
        width = self.layout.key_grid[1]
        bias = rows.index_select(-1, keys // width)
        bias += columns.index_select(-1, keys % width)
        spread = scores.unflatten(-1, (2, len(keys)))
        spread += bias[..., None, :]
        self.macs["add"] += bias.numel() + scores.numel()
