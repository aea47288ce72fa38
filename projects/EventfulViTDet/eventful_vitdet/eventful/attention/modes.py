"""The attention of an eventful block: how much of it is recomputed when some tokens change (algorithm, section 3).

Every mode owns the buffer of queries, keys and values, takes the rows that a gate let through, and returns the
attention's output for all tokens.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ..buffer import TokenBuffer
from ..counting import each
from ..gate import DeltaGate
from ..selection import Selection
from ..state import StreamTensor
from ..step import Step
from .exact import ExactAttention
from .layer import Attention
from .layout import AttentionLayout
from .position import add_position_bias
from .windows import TouchedWindowsAttention


class EventfulAttention(Protocol):
    """What a block needs of an attention mode."""

    def __call__(
        self, layer: Attention, rows: Tensor, selection: Selection, layout: AttentionLayout, step: Step
    ) -> Tensor:
        """Attention over the buffered tokens.

        Args:
            rows: new queries, keys and values of the selected tokens, (R, 3D).

        Returns:
            (B, N, D), before the output projection.
        """

    def clear(self) -> None:
        """Release all state."""

    @property
    def nbytes(self) -> int:
        """Bytes of state."""


class TokenwiseAttention:
    """`tokenwise`: dense attention over buffered queries, keys and values. Exact, and the only mode with windows."""

    def __init__(self, name: str, state_dtype: torch.dtype | None = None) -> None:
        self.buffer = TokenBuffer(f"{name}.qkv", state_dtype)

    def __call__(
        self, layer: Attention, rows: Tensor, selection: Selection, layout: AttentionLayout, step: Step
    ) -> Tensor:
        qkv = self.buffer(selection, rows)
        step.count("matmul", each(selection.streams, layer.product_macs(layout)))
        layer.count_position(layout, step)
        return layer.attend_to_state(qkv, rows.dtype, layout)

    def clear(self) -> None:
        self.buffer.clear()

    @property
    def nbytes(self) -> int:
        return self.buffer.nbytes


class QueryKeyAttention:
    """`query-key`: keeps S = (q / sqrt(d)) k^T and recomputes only the rows and columns of the selected tokens."""

    def __init__(self, name: str, state_dtype: torch.dtype | None = None) -> None:
        self.buffer = TokenBuffer(f"{name}.qkv", state_dtype)
        self.scores = StreamTensor(f"{name} query-key product", state_dtype)

    def __call__(
        self, layer: Attention, rows: Tensor, selection: Selection, layout: AttentionLayout, step: Step
    ) -> Tensor:
        qkv = self.buffer(selection, rows).to(rows.dtype)
        q, k, v = layer.split_heads(qkv)
        k, v = layout.pool_keys(k), layout.pool_keys(v)
        scores = self.scores.slots((*q.shape[:3], layout.keys), q)
        layer.count_position(layout, step)
        outputs = []
        for stream, flush in enumerate(step.flush):
            index = None if flush else selection.stream_index(stream, q.device)
            changed = None if index is None else layout.pooled_index(index)
            self._update_scores(scores, layer.scale * q[stream], k[stream], index, changed, stream, step)
            weights = attention_weights(layer, scores[stream], q[stream], layout)
            outputs.append(self._apply(weights, v[stream], changed, stream, step))
        return torch.stack(outputs).transpose(1, 2).flatten(2)

    @staticmethod
    def _update_scores(
        slots: Tensor, q: Tensor, k: Tensor, index: Tensor | None, changed: Tensor | None, stream: int, step: Step
    ) -> None:
        """Bring one stream's S (H, N, S) up to date: rows of changed queries, columns of changed keys."""
        scores = slots[stream]
        heads, tokens, channels = q.shape
        if index is None or changed is None:
            scores.copy_(q @ k.transpose(-2, -1))
            step.count_stream("matmul", stream, scores.numel() * channels)
            return
        rows = q.index_select(1, index) @ k.transpose(-2, -1)
        columns = q @ k.index_select(1, changed).transpose(-2, -1)
        scores.index_copy_(1, index, rows.to(scores.dtype))
        scores.index_copy_(2, changed, columns.to(scores.dtype))
        macs = heads * channels * (len(index) * k.shape[1] + tokens * len(changed))
        step.count_stream("matmul", stream, macs)

    def _apply(self, weights: Tensor, v: Tensor, changed: Tensor | None, stream: int, step: Step) -> Tensor:
        """Attention-value product of one stream, (H, N, d)."""
        step.count_stream("matmul", stream, weights.numel() * v.shape[-1])
        return weights @ v

    def clear(self) -> None:
        self.buffer.clear()
        self.scores.clear()

    @property
    def nbytes(self) -> int:
        return self.buffer.nbytes + self.scores.nbytes


class FullAttention(QueryKeyAttention):
    """`full`, the paper's attention: O = A V is updated too, by O += A_new v_delta + A_delta (v_new - v_delta).

    Columns of A outside the selected set keep their stale values, so the result approximates `tokenwise`.
    """

    def __init__(self, name: str, state_dtype: torch.dtype | None = None) -> None:
        super().__init__(name, state_dtype)
        self.value_gate = DeltaGate(dim=1)
        self.column_gate = DeltaGate(dim=2)
        self.values = StreamTensor(f"{name} value reference", state_dtype)
        self.weights = StreamTensor(f"{name} attention reference", state_dtype)
        self.product = StreamTensor(f"{name} attention-value product")

    def _apply(self, weights: Tensor, v: Tensor, changed: Tensor | None, stream: int, step: Step) -> Tensor:
        streams, (heads, tokens, _), channels = len(step.flush), weights.shape, v.shape[-1]
        v_ref = self.values.slots((streams, *v.shape), v)[stream]
        a_ref = self.weights.slots((streams, *weights.shape), weights)[stream]
        product = self.product.slots((streams, heads, tokens, channels), v)[stream]
        if changed is None:
            v_ref.copy_(v)
            a_ref.copy_(weights)
            product.copy_(weights @ v)
            step.count_stream("matmul", stream, weights.numel() * channels)
            return product
        v_new, v_delta = self.value_gate(v, v_ref, changed)
        a_new, a_delta = self.column_gate(weights, a_ref, changed)
        product += a_new @ v_delta
        product += a_delta @ (v_new - v_delta)
        step.count_stream("matmul", stream, 2 * a_new.numel() * channels)
        step.count_stream("gate", stream, v.numel() + weights.numel())
        step.count_stream("accumulator", stream, v_new.numel() + 2 * product.numel())
        return product

    def clear(self) -> None:
        super().clear()
        for state in (self.values, self.weights, self.product):
            state.clear()

    @property
    def nbytes(self) -> int:
        return super().nbytes + sum(state.nbytes for state in (self.values, self.weights, self.product))


def attention_weights(layer: Attention, scores: Tensor, q: Tensor, layout: AttentionLayout) -> Tensor:
    """A = softmax(S + position bias) of one stream, (H, N, S); S itself stays as it is."""
    bias = layer.position_terms(q, layout)
    scores = scores.to(q.dtype, copy=True)
    if bias is not None:
        scores = add_position_bias(scores, bias, layout)
    return scores.softmax(dim=-1)


ATTENTION_MODES: dict[str, type] = {
    "exact": ExactAttention,
    "full": FullAttention,
    "query-key": QueryKeyAttention,
    "tokenwise": TokenwiseAttention,
}


def make_attention(mode: str, windowed: bool, name: str, state_dtype: torch.dtype | None) -> EventfulAttention:
    """Build the attention of a block. Windowed blocks are `tokenwise` in all of the paper's modes.

    Raises:
        ValueError: the mode is unknown.
    """
    if mode not in ATTENTION_MODES:
        raise ValueError(f"attention = {mode!r} is unknown; choose one of {', '.join(map(repr, ATTENTION_MODES))}")
    if windowed:
        return (TouchedWindowsAttention if mode == "exact" else TokenwiseAttention)(name, state_dtype)
    return ATTENTION_MODES[mode](name, state_dtype)
