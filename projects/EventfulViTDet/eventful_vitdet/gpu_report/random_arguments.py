"""Sizes of cases, and random arguments for them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Size:
    """Tokens and channels of a case."""

    grid: tuple[int, int]
    streams: int = 1
    heads: int = 2
    channels: int = 16
    """Of a head."""
    window: int = 3

    @property
    def tokens(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def dim(self) -> int:
        return self.heads * self.channels

    def __str__(self) -> str:
        streams = f"{self.streams} streams of " if self.streams > 1 else ""
        return f"{streams}{self.grid[0]} x {self.grid[1]} tokens, {self.heads} heads of {self.channels}"


class Draw:
    """Random arguments on a device."""

    def __init__(self, dtype: torch.dtype, size: Size, device: torch.device) -> None:
        self.dtype, self.size, self.device = dtype, size, device
        self._generator = torch.Generator().manual_seed(size.tokens + size.dim)

    def floats(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator).to(self.device, self.dtype)

    def tokens(self, channels: int | None = None) -> Tensor:
        """(B, N, channels)."""
        return self.floats(self.size.streams, self.size.tokens, channels or self.size.dim)

    def norm(self) -> tuple[Tensor, Tensor, float]:
        """Weight, bias and eps of a layer norm."""
        return self.floats(self.size.dim), self.floats(self.size.dim), 1e-6

    def places(self, count: int, each: int) -> tuple[Tensor, Tensor]:
        """`count` places of the first stream and about half as many of the others; where each stream's begin."""
        chosen, offsets = [], [0]
        for stream in range(self.size.streams):
            number = min(count, each) if stream == 0 else min(count, each) // 2
            place = torch.randperm(each, generator=self._generator)[:number].sort().values
            chosen.append(stream * each + place)
            offsets.append(offsets[-1] + number)
        return torch.cat(chosen).to(self.device), torch.tensor(offsets, device=self.device)

    def attention(self, window: int, positions: bool) -> tuple:
        """What all attention operators take."""
        size = self.size
        tables = [0.5 * self.floats(2 * (window or side) - 1, size.channels) for side in size.grid]
        return tables if positions else [], size.heads, size.channels**-0.5, (*size.grid, window, 1)
