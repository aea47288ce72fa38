"""The set of tokens that a gate selected, for every stream of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Selection:
    """Selected tokens of B streams with N tokens each, packed one stream after the other.

    Packing lets one matrix product serve the tokens of all streams, however many each of them selected.
    """

    streams: int
    """B, the number of streams in the batch."""
    tokens: int
    """N, the number of tokens of one stream."""
    counts: tuple[int, ...]
    """Number of selected tokens of each stream."""
    index: Tensor | None
    """Indices (R,) into the B * N tokens, ascending; None when every token of every stream is selected."""

    @classmethod
    def everything(cls, streams: int, tokens: int) -> Selection:
        return cls(streams, tokens, (tokens,) * streams, None)

    @classmethod
    def from_mask(cls, mask: Tensor) -> Selection:
        """Build from a boolean mask (B, N)."""
        streams, tokens = mask.shape
        counts = tuple(mask.sum(dim=1).tolist())
        if sum(counts) == streams * tokens:
            return cls.everything(streams, tokens)
        return cls(streams, tokens, counts, mask.flatten().nonzero().squeeze(1))

    @classmethod
    def largest(cls, norms: Tensor, count: int) -> Selection:
        """The `count` tokens with the largest of the norms (B, N) in each stream.

        Nothing has to be known of the norms to know the selection's size: a GPU need not be waited for.
        """
        streams, tokens = norms.shape
        if count >= tokens:
            return cls.everything(streams, tokens)
        index = norms.topk(count, dim=-1, sorted=False).indices.sort(dim=-1).values
        index = (index + tokens * torch.arange(streams, device=norms.device)[:, None]).flatten()
        return cls(streams, tokens, (count,) * streams, index)

    @cached_property
    def _per_stream(self) -> tuple[Tensor, ...]:
        assert self.index is not None
        parts = self.index.split(self.counts)
        return tuple(part - stream * self.tokens for stream, part in enumerate(parts))

    def stream_index(self, stream: int, device: torch.device) -> Tensor:
        """Tokens (0 ... N - 1) that one stream selected, ascending."""
        if self.index is None:
            return torch.arange(self.tokens, device=device)
        return self._per_stream[stream]

    def take(self, values: Tensor) -> Tensor:
        """Gather the selected rows: (B, N, D) -> (R, D). May be a view of `values` when everything is selected."""
        rows = values.reshape(self.streams * self.tokens, values.shape[-1])
        return rows if self.index is None else rows.index_select(0, self.index)

    def put(self, target: Tensor, rows: Tensor) -> None:
        """Write rows (R, D) to their places in a contiguous `target` (B, N, D)."""
        flat = target.view(self.streams * self.tokens, target.shape[-1])
        rows = rows.to(target.dtype)
        if self.index is None:
            flat.copy_(rows)
        else:
            flat.index_copy_(0, self.index, rows)

    def mask(self, device: torch.device) -> Tensor:
        """The selection as a boolean mask (B, N)."""
        if self.index is None:
            return torch.ones(self.streams, self.tokens, dtype=torch.bool, device=device)
        mask = torch.zeros(self.streams * self.tokens, dtype=torch.bool, device=device)
        mask[self.index] = True
        return mask.view(self.streams, self.tokens)
