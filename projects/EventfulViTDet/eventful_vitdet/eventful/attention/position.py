"""Decomposed relative position bias: S[i, j] += q_i . Rh[y_i, y_j] + q_i . Rw[x_i, x_j], with the unscaled query."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kernels import native
from .layout import AttentionLayout


def position_table(table: Tensor, size: int, pool: int = 1) -> Tensor:
    """Expand a table of relative positions along one axis.

    Args:
        table: (L, d), one row for each distance from -(size - 1) to size - 1. A table made for another size is
            resized linearly, as Detectron2 does.
        size: number of positions along the axis.
        pool: the entries of `pool` neighbouring keys are averaged.

    Returns:
        (size, size / pool, d): entry [i, j] belongs to a query at i and a key at j.
    """
    distances = 2 * size - 1
    if table.shape[0] != distances:
        table = F.interpolate(table.t()[None], size=distances, mode="linear")[0].t()
    positions = torch.arange(size, device=table.device)
    expanded = table[positions[:, None] - positions[None, :] + size - 1]
    if pool > 1:
        expanded = expanded.unflatten(1, (size // pool, pool)).mean(2)
    return expanded


class PositionTables:
    """Expands a block's tables, and keeps the result while the parameters stay as they are."""

    def __init__(self) -> None:
        self._key: tuple | None = None
        self._tables: tuple[Tensor, Tensor] | None = None
        self._packed: tuple[Tensor, Tensor] | None = None

    def __call__(self, rel_pos_h: Tensor, rel_pos_w: Tensor, layout: AttentionLayout) -> tuple[Tensor, Tensor]:
        """The tables (a, a / p, d) and (b, b / p, d) of a layout; differentiable while gradients are recorded."""
        if torch.is_grad_enabled():
            return self._expand(rel_pos_h, rel_pos_w, layout)
        key = (layout, *(stamp for table in (rel_pos_h, rel_pos_w) for stamp in parameter_stamp(table)))
        if self._key != key or self._tables is None:
            self._tables, self._packed = self._expand(rel_pos_h, rel_pos_w, layout), None
            self._key = key
        return self._tables

    def packed(self, rel_pos_h: Tensor, rel_pos_w: Tensor, layout: AttentionLayout) -> tuple[Tensor, Tensor]:
        """The same for the compiled kernels."""
        rows, columns = self(rel_pos_h, rel_pos_w, layout)
        if self._packed is None:
            self._packed = native.pack_positions(rows), native.pack_positions(columns)
        return self._packed

    @staticmethod
    def _expand(rel_pos_h: Tensor, rel_pos_w: Tensor, layout: AttentionLayout) -> tuple[Tensor, Tensor]:
        height, width = layout.query_grid
        return position_table(rel_pos_h, height, layout.pool), position_table(rel_pos_w, width, layout.pool)


def parameter_stamp(parameter: Tensor) -> tuple:
    """A value that changes whenever the parameter's content may have: replaced, moved, cast or written to."""
    return parameter.data_ptr(), parameter._version, parameter.dtype, parameter.device


def position_bias(q: Tensor, tables: tuple[Tensor, Tensor], layout: AttentionLayout) -> tuple[Tensor, Tensor]:
    """The two terms of the bias for all queries of some groups.

    Args:
        q: unscaled queries, (G, a * b, d).

    Returns:
        (G, a, b, a / p) for key rows and (G, a, b, b / p) for key columns.
    """
    grid_q = q.reshape(-1, *layout.query_grid, q.shape[-1])
    rows = torch.einsum("gyxc,ykc->gyxk", grid_q, tables[0].to(q.dtype))
    columns = torch.einsum("gyxc,xkc->gyxk", grid_q, tables[1].to(q.dtype))
    return rows, columns


def add_position_bias(scores: Tensor, bias: tuple[Tensor, Tensor], layout: AttentionLayout) -> Tensor:
    """Add the bias to scores (G, a * b, S) in place, and return them."""
    spread = scores.view(-1, *layout.query_grid, *layout.key_grid)
    spread += bias[0][..., :, None]
    spread += bias[1][..., None, :]
    return scores
