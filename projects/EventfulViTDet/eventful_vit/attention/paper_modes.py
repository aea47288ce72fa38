"""The paper's attention, for comparison: `tokenwise`, `query-key` and `full` (paper, section 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..buffer import TokenBuffer
from ..frame import AttentionWork, Frame
from ..gate import DeltaGate
from ..ops.attention import split_heads
from ..selection import Selection
from .core import AttentionSpec
from .exact import changed_cells
from .layout import AttentionLayout
from .position import add_position_terms, position_tables, position_terms


class TokenwiseAttention:
    """`tokenwise`: dense attention over buffered queries, keys and values. Exact, and the only mode with windows."""

    def __init__(self, name: str, state_dtype: torch.dtype | None = None) -> None:
        self._qkv = TokenBuffer(f"{name}.qkv", state_dtype)

    def __call__(
        self, spec: AttentionSpec, rows: Tensor, selection: Selection, layout: AttentionLayout, frame: Frame
    ) -> tuple[Tensor, AttentionWork]:
        qkv = self._qkv.store(rows, selection, frame, spec.dtype)
        return spec.attend(qkv, spec.dtype, layout), AttentionWork("dense")


class QueryKeyAttention:
    """`query-key`: keeps S = (q / sqrt(d)) k^T and recomputes only the rows and columns of the selected tokens."""

    kind = "query-key"

    def __init__(self, name: str, state_dtype: torch.dtype | None = None) -> None:
        self._name = name
        self._state_dtype = state_dtype
        self._qkv = TokenBuffer(f"{name}.qkv", state_dtype)

    def __call__(
        self, spec: AttentionSpec, rows: Tensor, selection: Selection, layout: AttentionLayout, frame: Frame
    ) -> tuple[Tensor, AttentionWork]:
        q, k, v = split_heads(self._qkv.store(rows, selection, frame, spec.dtype).to(spec.dtype), spec.heads)
        k, v = layout.pool_keys(k), layout.pool_keys(v)
        cells, offsets = (None, None) if selection.index is None else changed_cells(selection, layout)
        outputs = []
        for stream, flush in enumerate(frame.flush):
            tokens = keys = None
            if not (flush or selection.index is None):
                tokens = selection.stream_index(stream)
                keys = cells[offsets[stream] : offsets[stream + 1]] - stream * layout.keys
            scores = self._scores(spec.scale * q[stream], k[stream], tokens, keys, stream, frame)
            weights = attention_weights(spec, scores, q[stream], layout)
            outputs.append(self._apply(weights, v[stream], keys, stream, frame))
        return torch.stack(outputs).transpose(1, 2).flatten(2), AttentionWork(self.kind, offsets)

    def _scores(
        self, q: Tensor, k: Tensor, tokens: Tensor | None, keys: Tensor | None, stream: int, frame: Frame
    ) -> Tensor:
        """One stream's S (H, N, S), with rows of changed queries and columns of changed keys brought up to date."""
        scores = self._slots("scores", (*q.shape[:2], k.shape[1]), q, frame)[stream]
        if tokens is None or keys is None:
            return scores.copy_(q @ k.mT)
        rows = q.index_select(1, tokens) @ k.mT
        columns = q @ k.index_select(1, keys).mT
        scores.index_copy_(1, tokens, rows.to(scores.dtype))
        return scores.index_copy_(2, keys, columns.to(scores.dtype))

    def _apply(self, weights: Tensor, v: Tensor, keys: Tensor | None, stream: int, frame: Frame) -> Tensor:
        """Attention-value product of one stream, (H, N, d)."""
        return weights @ v

    def _slots(self, part: str, shape: tuple[int, ...], like: Tensor, frame: Frame) -> Tensor:
        return frame.slots(f"{self._name}.{part}", shape, like, self._state_dtype)


class FullAttention(QueryKeyAttention):
    """`full`, the paper's attention: O = A V is updated too, by O += A_new v_delta + A_delta (v_new - v_delta).

    Columns of A outside the selected set keep their stale values, so the result approximates `tokenwise`. What became
    NaN or infinite inside the model stays in O until the next flush: looking for it would make a GPU wait in each
    block.
    """

    kind = "full"

    def _apply(self, weights: Tensor, v: Tensor, keys: Tensor | None, stream: int, frame: Frame) -> Tensor:
        v_reference = self._slots("values", v.shape, v, frame)[stream]
        a_reference = self._slots("weights", weights.shape, weights, frame)[stream]
        shape = (*weights.shape[:2], v.shape[-1])
        product = frame.slots(f"{self._name}.product", shape, v)[stream]
        if keys is None:
            v_reference.copy_(v)
            a_reference.copy_(weights)
            return product.copy_(weights @ v)
        v_new, v_delta = DeltaGate(dim=1)(v, v_reference, keys)
        a_new, a_delta = DeltaGate(dim=2)(weights, a_reference, keys)
        product += a_new @ v_delta
        product += a_delta @ (v_new - v_delta)
        return product


def attention_weights(spec: AttentionSpec, scores: Tensor, q: Tensor, layout: AttentionLayout) -> Tensor:
    """A = softmax(S + position bias) of one stream, (H, N, S); S itself stays as it is."""
    scores = scores.to(q.dtype, copy=True)
    if spec.tables:
        tables = position_tables(*spec.tables, layout)
        scores = add_position_terms(scores, position_terms(q, tables, layout), layout)
    return scores.softmax(dim=-1)
