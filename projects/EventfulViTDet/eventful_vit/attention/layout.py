"""How the tokens of a block are laid out for attention: one group for the whole grid, or windows, with pooled keys."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class AttentionLayout:
    """Shapes of one block's attention on a given token grid."""

    grid: tuple[int, int]
    """Token grid (h, w)."""
    window: int = 0
    """Side of a square window in tokens; 0: every token attends to the whole grid."""
    pool: int = 1
    """Keys and values are averaged over pool x pool tokens (global blocks)."""

    def __post_init__(self) -> None:
        if self.grid[0] % self.pool or self.grid[1] % self.pool:
            raise ValueError(
                f"kv_pool = {self.pool} does not divide the token grid {self.grid[0]} x {self.grid[1]}; "
                "choose a divisor of both sides or another image size"
            )

    @property
    def tokens(self) -> int:
        """N, tokens of the grid."""
        return self.grid[0] * self.grid[1]

    @property
    def padding(self) -> tuple[int, int]:
        """Rows and columns of zero tokens that fill the last windows."""
        if not self.window:
            return 0, 0
        return -self.grid[0] % self.window, -self.grid[1] % self.window

    @property
    def padded_grid(self) -> tuple[int, int]:
        return self.grid[0] + self.padding[0], self.grid[1] + self.padding[1]

    @property
    def padded_tokens(self) -> int:
        """Np, tokens of the grid with the windows' padding."""
        return self.padded_grid[0] * self.padded_grid[1]

    @property
    def windows(self) -> int:
        """Number of windows."""
        return self.padded_tokens // self.window**2

    @property
    def query_grid(self) -> tuple[int, int]:
        """(a, b), rows and columns of the queries of one group."""
        return (self.window, self.window) if self.window else self.grid

    @property
    def key_grid(self) -> tuple[int, int]:
        """(a / p, b / p), rows and columns of the keys of one group."""
        return self.query_grid[0] // self.pool, self.query_grid[1] // self.pool

    @property
    def keys(self) -> int:
        """S, keys that one query sees."""
        return self.key_grid[0] * self.key_grid[1]

    def partition(self, x: Tensor, fill: Tensor | None) -> Tensor:
        """Cut the grid into its attention groups.

        Args:
            x: (B, N, E).
            fill: value of padding tokens, (E,); None means zero.

        Returns:
            (B * groups, a * b, E).
        """
        if not self.window:
            return x
        batch, _, channels = x.shape
        x = x.view(batch, *self.grid, channels)
        down, right = self.padding
        if down or right:
            padded = x.new_empty(batch, *self.padded_grid, channels)
            padded[:] = 0 if fill is None else fill
            padded[:, : self.grid[0], : self.grid[1]] = x
            x = padded
        rows, columns, side = self.padded_grid[0] // self.window, self.padded_grid[1] // self.window, self.window
        x = x.view(batch, rows, side, columns, side, channels).transpose(2, 3)
        return x.reshape(batch * rows * columns, side * side, channels)

    def merge(self, x: Tensor) -> Tensor:
        """Undo `partition`: (B * groups, a * b, E) -> (B, N, E), without the padding."""
        if not self.window:
            return x
        rows, columns, side = self.padded_grid[0] // self.window, self.padded_grid[1] // self.window, self.window
        x = x.view(-1, rows, columns, side, side, x.shape[-1]).transpose(2, 3)
        x = x.reshape(-1, *self.padded_grid, x.shape[-1])[:, : self.grid[0], : self.grid[1]]
        return x.reshape(x.shape[0], self.tokens, x.shape[-1])

    def pool_keys(self, x: Tensor) -> Tensor:
        """Average keys or values over pool x pool cells: (..., a * b, d) -> (..., S, d)."""
        if self.pool == 1:
            return x
        cells = x.reshape(-1, *self.query_grid, x.shape[-1]).permute(0, 3, 1, 2)
        cells = F.avg_pool2d(cells, self.pool).permute(0, 2, 3, 1)
        return cells.reshape(*x.shape[:-2], self.keys, x.shape[-1])

    def cell_of(self, tokens: Tensor) -> Tensor:
        """The key that each token belongs to: the token itself, or the pooled cell that holds it."""
        if self.pool == 1:
            return tokens
        width = self.grid[1]
        return tokens // width // self.pool * (width // self.pool) + tokens % width // self.pool

    @cached_property
    def window_members(self) -> Tensor:
        """Tokens of every window, (windows, window * window); -1 for padding."""
        rows, columns, side = self.padded_grid[0] // self.window, self.padded_grid[1] // self.window, self.window
        y, x = torch.arange(self.padded_grid[0])[:, None], torch.arange(self.padded_grid[1])
        tokens = torch.where((y < self.grid[0]) & (x < self.grid[1]), y * self.grid[1] + x, -1)
        return tokens.view(rows, side, columns, side).transpose(1, 2).reshape(rows * columns, side * side)

    @cached_property
    def window_of_token(self) -> Tensor:
        """The window that each token lies in, (N,)."""
        tokens = torch.arange(self.tokens)
        y, x = tokens // self.grid[1], tokens % self.grid[1]
        return y // self.window * (self.padded_grid[1] // self.window) + x // self.window

    def cell_members(self, cells: Tensor) -> Tensor:
        """Tokens of pooled cells: (kk,) -> (kk, pool * pool)."""
        width = self.grid[1]
        top, left = cells // self.key_grid[1] * self.pool, cells % self.key_grid[1] * self.pool
        offsets = torch.arange(self.pool, device=cells.device)
        inside = (offsets[:, None] * width + offsets).flatten()
        return (top * width + left)[:, None] + inside


@lru_cache(maxsize=256)
def attention_layout(height: int, width: int, window: int = 0, pool: int = 1) -> AttentionLayout:
    """The layout of these sizes; one object for all who ask, which keeps its index tables."""
    return AttentionLayout((height, width), window, pool)
