"""The set of tokens that a gate selected, for every stream of a batch."""

from __future__ import annotations

from dataclasses import dataclass

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
    index: Tensor | None
    """Places (R,) among the B * N tokens, ascending; None when every token of every stream is selected."""
    offsets: Tensor | None
    """Where each stream's places begin in `index`, and their number, (B + 1,); None with `index`."""
    used: Tensor | None = None
    """How many of the places count, (), where memory was set aside for more; None: all of them."""

    @classmethod
    def everything(cls, streams: int, tokens: int) -> Selection:
        return cls(streams, tokens, None, None)

    @classmethod
    def from_mask(cls, mask: Tensor) -> Selection:
        """Build from a boolean mask (B, N)."""
        streams, tokens = mask.shape
        index = mask.flatten().nonzero().squeeze(1)
        if len(index) == streams * tokens:
            return cls.everything(streams, tokens)
        offsets = torch.zeros(streams + 1, dtype=torch.int64, device=mask.device)
        offsets[1:] = mask.sum(dim=1).cumsum(dim=0)
        return cls(streams, tokens, index, offsets)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of selected tokens of each stream."""
        if self.offsets is None:
            return (self.tokens,) * self.streams
        return tuple(self.offsets.diff().tolist())

    def stream_index(self, stream: int) -> Tensor:
        """Tokens (0 ... N - 1) that one stream selected, ascending."""
        if self.index is None:
            return torch.arange(self.tokens, device="cpu")
        return self.index[self.offsets[stream] : self.offsets[stream + 1]] - stream * self.tokens

    def take(self, values: Tensor) -> Tensor:
        """Gather the selected rows: (B, N, D) -> (R, D). May be a view of `values` when everything is selected."""
        rows = values.reshape(self.streams * self.tokens, values.shape[-1])
        return rows if self.index is None else rows.index_select(0, self.index)

    def places(self, device: torch.device) -> Tensor:
        """Which token (0 ... N - 1) of its stream each packed row belongs to, (R,); 0 for rows that do not count."""
        if self.index is None:
            return torch.arange(self.tokens, device=device).repeat(self.streams)
        if self.used is None:
            return self.index % self.tokens
        counts = torch.arange(len(self.index), device=device) < self.used
        return torch.where(counts, self.index % self.tokens, 0)

    def mask(self) -> Tensor:
        """The selection as a boolean mask (B, N)."""
        if self.index is None:
            return torch.ones(self.streams, self.tokens, dtype=torch.bool, device="cpu")
        mask = torch.zeros(self.streams * self.tokens, dtype=torch.bool, device=self.index.device)
        mask[self.index if self.used is None else self.index[: int(self.used)]] = True
        return mask.view(self.streams, self.tokens)
