"""The queries, keys and values that `exact` attention works on, and what of them a frame changed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..buffer import TokenBuffer
from ..selection import Selection
from ..state import StreamTensor
from .layout import AttentionLayout


@dataclass(frozen=True)
class KeyChange:
    """What one stream's frame changed."""

    tokens: Tensor
    """Tokens with new queries, (r,), ascending."""
    keys: Tensor
    """Keys that changed with them, (kk,): the tokens themselves, or the pooled cells that hold them."""
    old: Tensor
    """Keys and values of these before the frame, (kk, 2D)."""


class KeyStore:
    """Buffers queries, keys and values of all tokens; with pooling, the pooled keys and values too."""

    def __init__(self, name: str, state_dtype: torch.dtype | None) -> None:
        self._buffer = TokenBuffer(f"{name}.qkv", state_dtype)
        self._pooled = StreamTensor(f"{name} pooled keys and values", state_dtype)
        self._qkv: Tensor | None = None

    def update(
        self, rows: Tensor, selection: Selection, layout: AttentionLayout, flush: tuple[bool, ...]
    ) -> list[KeyChange | None]:
        """Store new rows (R, 3D); returns each stream's change, None for a flush."""
        found = [
            None if fresh else self._find(selection, stream, layout, rows.device) for stream, fresh in enumerate(flush)
        ]
        self._qkv = self._buffer.values(selection, rows)
        before = [None if keys is None else self._keys(stream, layout)[keys[1]] for stream, keys in enumerate(found)]
        selection.put(self._qkv, rows)
        if layout.pool > 1:
            self._pool(found, layout)
        return [
            None if keys is None or old is None else KeyChange(keys[0], keys[1], old)
            for keys, old in zip(found, before)
        ]

    def memory(self, shape: tuple[int, int, int], like: Tensor) -> Tensor:
        """The stored queries, keys and values (B, N, 3D), for a kernel that updates them by itself."""
        self._qkv = self._buffer.memory(shape, like)
        return self._qkv

    @property
    def qkv(self) -> Tensor:
        """Queries, keys and values of all tokens, (B, N, 3D), as of the last update."""
        assert self._qkv is not None
        return self._qkv

    def read(self, layout: AttentionLayout, stream: int) -> tuple[Tensor, Tensor, Tensor]:
        """Views of one stream's queries (N, D), keys and values (S, D)."""
        q = self.qkv[stream, :, : self.qkv.shape[-1] // 3]
        return q, *self._keys(stream, layout).chunk(2, dim=-1)

    @staticmethod
    def _find(
        selection: Selection, stream: int, layout: AttentionLayout, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        tokens = selection.stream_index(stream, device)
        return tokens, layout.pooled_index(tokens)

    def _keys(self, stream: int, layout: AttentionLayout) -> Tensor:
        """Keys and values that queries see, (S, 2D), as they are now."""
        assert self._qkv is not None
        if layout.pool == 1:
            return self._qkv[stream, :, self._qkv.shape[-1] // 3 :]
        like = self._qkv
        return self._pooled.slots((like.shape[0], layout.keys, like.shape[-1] // 3 * 2), like)[stream]

    def _pool(self, found: list[tuple[Tensor, Tensor] | None], layout: AttentionLayout) -> None:
        """Average anew the cells that changed, or all of a stream that flushed."""
        assert self._qkv is not None
        for stream, change in enumerate(found):
            tokens = self._qkv[stream, :, self._qkv.shape[-1] // 3 :]
            if change is None:
                self._keys(stream, layout).copy_(layout.pool_keys(tokens))
            else:
                members = layout.cell_members(change[1])
                self._keys(stream, layout)[change[1]] = tokens[members].mean(dim=1)

    def clear(self) -> None:
        self._buffer.clear()
        self._pooled.clear()
        self._qkv = None

    @property
    def nbytes(self) -> int:
        return self._buffer.nbytes + self._pooled.nbytes


def split(x: Tensor, heads: int) -> Tensor:
    """(n, D) -> (H, n, d), in float32."""
    return x.unflatten(-1, (heads, -1)).transpose(0, 1).float()
