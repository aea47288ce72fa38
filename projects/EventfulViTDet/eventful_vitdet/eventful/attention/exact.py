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

from functools import cached_property

import torch
from torch import Tensor

from ..kernels import native
from ..selection import Selection
from ..state import StreamTensor
from ..step import Step
from .keys import KeyChange, KeyStore, split
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
GPU_TILE_SCORES = 2**26
"""The same on a GPU, which wants large tasks."""
SPARE_QUERIES = 32
"""In frames of fixed size, one query in so many is computed anew beside the changed ones."""


class ExactAttention:
    """`exact`: see the module's description. The streams of a batch are updated one after the other."""

    PARTS = ("sums", "normalisers", "references", "drift")

    def __init__(self, name: str, state_dtype: torch.dtype | None = None) -> None:
        self.keys = KeyStore(name, state_dtype)
        self._states = {part: StreamTensor(f"{name} {part}", torch.float32) for part in self.PARTS}

    def __call__(
        self, layer: Attention, rows: Tensor, selection: Selection, layout: AttentionLayout, step: Step
    ) -> Tensor:
        changes = self.keys.update(rows, selection, layout, step.flush)
        output = rows.new_empty(selection.streams, layout.tokens, layer.proj.in_features)
        work_class = self._work_class(rows, step)
        for stream, change in enumerate(changes):
            sums = self._slots(layer, layout, selection.streams, rows)
            work = work_class(layer, layout, *self.keys.read(layout, stream), *(part[stream] for part in sums))
            if change is None or len(change.keys) > DENSE_ABOVE * layout.keys:
                work.recompute_all()
            elif len(change.tokens):
                work.update(change)
            work.write_output(output[stream])
            if step.unreliable is not None and work.left_over is not None:
                step.unreliable.append(work.left_over)
            for category, macs in work.macs().items():
                step.count_stream(category, stream, macs)
        return output

    def memory(self, layer: Attention, layout: AttentionLayout, streams: int, like: Tensor) -> list[Tensor]:
        """The state of some streams: queries, keys and values (B, N, 3D), and the sums in the order of PARTS."""
        channels = layer.qkv.out_features
        return [
            self.keys.memory((streams, layout.tokens, channels), like),
            *self._slots(layer, layout, streams, like),
        ]

    def _work_class(self, rows: Tensor, step: Step) -> type[StreamWork]:
        if step.fixed_sizes:
            return FixedSizeStreamAttention
        return NativeStreamAttention if native.usable(self.keys.qkv, rows) else StreamAttention

    def _slots(self, layer: Attention, layout: AttentionLayout, streams: int, like: Tensor) -> list[Tensor]:
        """The sums of some streams, in the order of PARTS."""
        per_query = ((layer.proj.in_features // layer.num_heads,), (), (), ())
        return [
            self._states[part].slots((streams, layer.num_heads, layout.tokens, *size), like)
            for part, size in zip(self.PARTS, per_query)
        ]

    def clear(self) -> None:
        self.keys.clear()
        for state in self._states.values():
            state.clear()

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + sum(state.nbytes for state in self._states.values())


class StreamWork:
    """The work of one frame on one stream's sums, which it updates in place."""

    left_over: Tensor | None = None
    """Number of queries whose sums could not be brought up to date; None where that cannot happen."""

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
    ) -> None:
        """
        Args:
            q: unscaled queries, (N, D).
            k, v: all keys and values, (S, D), as of this frame.
            sums: U, (H, N, d), float32.
            normalisers, references, drift: Z, m and the error bound, (H, N) each, float32.
        """
        self.layer, self.layout = layer, layout
        self.q, self.k, self.v = q, k, v
        self.sums, self.normalisers, self.references, self.drift = sums, normalisers, references, drift
        self.heads, self.channels = layer.num_heads, sums.shape[-1]
        self.exchanged = self.exchanged_keys = self.recomputed = 0

    def macs(self) -> dict[str, int]:
        """The operations that were executed, by category."""
        if not (self.exchanged or self.recomputed):
            return {}
        return executed_macs(self.layer, self.layout, self.exchanged, self.exchanged_keys, self.recomputed)


def executed_macs(
    layer: Attention, layout: AttentionLayout, exchanged: int, keys: int, recomputed: int
) -> dict[str, int]:
    """Operations of one stream's frame, by category.

    Args:
        exchanged: pairs of a head and a query that took out and added terms of `keys` changed keys.
        recomputed: pairs that were computed over all keys.
    """
    channels = layer.proj.in_features // layer.num_heads
    scores = recomputed * layout.keys + 2 * exchanged * keys
    return {
        "matmul": 2 * scores * channels,
        "position": layer.position_macs(layout),
        "add": 2 * scores if layer.use_rel_pos else 0,
        "accumulator": exchanged * (channels + 1) if keys else 0,
    }


class NativeStreamAttention(StreamWork):
    """By the compiled kernels, which recompute an unreliable query in the heads alone where it is unreliable."""

    def recompute_all(self) -> None:
        nothing = self.q.new_empty(0)
        self._run(None, nothing.long(), nothing)

    def update(self, change: KeyChange) -> None:
        renew = torch.zeros(self.layout.tokens, dtype=torch.bool)
        renew[change.tokens] = True
        self._run(renew, change.keys.contiguous(), change.old.contiguous())

    def _run(self, renew: Tensor | None, keys: Tensor, old: Tensor) -> None:
        layer, layout = self.layer, self.layout
        problem = native.AttentionProblem(
            self.q,
            self.k,
            self.v,
            self.heads,
            layer.scale,
            layout.query_grid,
            layout.key_grid,
            layer.packed_position_tables(layout),
        )
        sums = (self.sums, self.normalisers, self.references, self.drift)
        limits = (SCORE_LIMIT, DRIFT_LIMIT, TERM_ROUNDING)
        self.exchanged, self.recomputed = native.update_sums(problem, sums, renew, keys, old, limits)
        self.exchanged_keys = len(keys)

    def write_output(self, out: Tensor) -> None:
        """O = U / Z of all tokens, into (N, D)."""
        native.divide_sums(self.sums, self.normalisers, out)


class StreamAttention(StreamWork):
    """By PyTorch operations, in float32, a tile of queries after another."""

    def __init__(self, layer: Attention, layout: AttentionLayout, q: Tensor, k: Tensor, v: Tensor, *sums: Tensor):
        super().__init__(layer, layout, *(split(x, layer.num_heads) for x in (q, k, v)), *sums)
        self._tile_scores = GPU_TILE_SCORES if q.is_cuda else TILE_SCORES

    @cached_property
    def _bias(self) -> tuple[Tensor, Tensor] | None:
        """Position terms for key rows (H, N, a / p) and columns (H, N, b / p).

        They are made anew from the queries of all tokens: a thirtieth of a frame's work at most, against a tenth
        of the state for keeping them.
        """
        terms = self.layer.position_terms(self.q, self.layout)
        return None if terms is None else (terms[0].flatten(1, 2), terms[1].flatten(1, 2))

    def write_output(self, out: Tensor) -> None:
        """O = U / Z of all tokens, into (N, D)."""
        out.unflatten(-1, (self.heads, -1)).transpose(0, 1).copy_(self.sums / self.normalisers[..., None])

    def update(self, change: KeyChange) -> None:
        """Recompute changed queries, update the others by signed delta keys, and recompute those it is bad for."""
        unchanged = torch.ones(self.layout.tokens, dtype=torch.bool, device=self.q.device)
        unchanged[change.tokens] = False
        self._recompute(change.tokens)
        tokens = unchanged.nonzero().squeeze(1)
        self._recompute(tokens[self._apply_deltas(tokens, change)])

    def recompute_all(self) -> None:
        """Recompute every query."""
        self._recompute(torch.arange(self.layout.tokens, device=self.q.device))

    def _recompute(self, tokens: Tensor) -> None:
        """Compute the sums of these queries over all keys, with new references."""
        for tile in tokens.split(max(1, self._tile_scores // (self.heads * self.layout.keys))):
            scores = (self.q[:, tile] * self.layer.scale) @ self.k.mT
            self._add_bias(scores, tile, None)
            reference = scores.amax(dim=-1)
            weights = scores.sub_(reference[..., None]).exp_()
            self.references[:, tile] = reference
            self.normalisers[:, tile] = weights.sum(dim=-1)
            self.sums[:, tile] = weights @ self.v
            self.drift.index_fill_(1, tile, TERM_ROUNDING)
        self.recomputed += self.heads * len(tokens)

    def _apply_deltas(self, tokens: Tensor, change: KeyChange) -> Tensor:
        """Exchange the terms of changed keys in the sums of unchanged queries.

        Args:
            tokens: the queries, (T,).

        Returns:
            Which of them have sums that are no longer to be relied upon, (T,).
        """
        changed = len(change.keys)
        old_k, old_v = (split(part, self.heads) for part in change.old.chunk(2, -1))
        keys = torch.cat([self.k[:, change.keys], old_k], dim=1)
        values = torch.cat([self.v[:, change.keys], -old_v], dim=1)
        unreliable = []
        for tile in tokens.split(max(1, self._tile_scores // (2 * self.heads * changed))):
            scores = (self.q[:, tile] * self.layer.scale) @ keys.mT
            self._add_bias(scores, tile, change.keys)
            scores -= self.references[:, tile, None]
            too_high = (scores[..., :changed].amax(dim=-1) > SCORE_LIMIT).any(dim=0)
            weights = scores.exp_()
            drifted = self._accumulate(tile, weights, values, changed)
            unreliable.append(too_high | drifted)
        self.exchanged, self.exchanged_keys = self.heads * len(tokens), changed
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
        if self._bias is None:
            return
        rows, columns = (terms[:, tile] for terms in self._bias)
        if keys is None:
            spread = scores.unflatten(-1, self.layout.key_grid)
            spread += rows[..., :, None]
            spread += columns[..., None, :]
            return
        width = self.layout.key_grid[1]
        bias = rows.index_select(-1, keys // width)
        bias += columns.index_select(-1, keys % width)
        spread = scores.unflatten(-1, (2, len(keys)))
        spread += bias[..., None, :]


class FixedSizeStreamAttention(StreamAttention):
    """The same with sizes that follow from the number of changed tokens alone, so that a GPU can record them.

    All queries take the exchange, and a fixed number of those with the largest error bound is computed anew with the
    changed ones. Where more have become unreliable, `left_over` counts them.
    """

    def update(self, change: KeyChange) -> None:
        everyone = torch.arange(self.layout.tokens, device=self.q.device)
        unreliable = self._apply_deltas(everyone, change).index_fill(0, change.tokens, False)
        bound = torch.where(unreliable, torch.inf, self.drift.amax(dim=0)).index_fill(0, change.tokens, -1.0)
        spare = min(self.layout.tokens // SPARE_QUERIES + 1, self.layout.tokens - len(change.tokens))
        worst = bound.topk(spare, sorted=False).indices
        self._recompute(torch.cat([change.tokens, worst]))
        self.left_over = (unreliable.sum() - spare).clamp(min=0)
