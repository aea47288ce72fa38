"""Rotary positions: pairs of channels of each query and key are turned by angles that depend on the token's place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RotaryTables:
    """Sines and cosines of the angles of all tokens, (N, 1, d) for all heads or (N, H, d)."""

    sin: Tensor
    cos: Tensor
    interleaved: bool
    """Pairs are neighbours, (0, 1), (2, 3), ...; otherwise half a head apart, (0, d / 2), (1, d / 2 + 1), ..."""

    @classmethod
    def of_grid(cls, sin: Tensor, cos: Tensor, prefix: int, interleaved: bool) -> RotaryTables:
        """From tables of the grid's tokens, (h * w, 1 or H, d); the `prefix` tokens before them are not turned."""
        still = sin.new_zeros(prefix, *sin.shape[1:])
        return cls(torch.cat([still, sin]), torch.cat([still + 1, cos]), interleaved)

    def turn(self, x: Tensor, places: Tensor) -> Tensor:
        """Turn queries or keys (..., H, d) of tokens at these places (...,)."""
        turned = x * self.cos[places] + self._quarter_turn(x) * self.sin[places]
        return turned.to(x.dtype)

    def _quarter_turn(self, x: Tensor) -> Tensor:
        """Each pair (a, b) becomes (-b, a)."""
        if self.interleaved:
            return torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
        first, second = x.chunk(2, dim=-1)
        return torch.cat([-second, first], dim=-1)
