"""Decomposed relative position bias: S[i, j] += q_i . Rh[y_i, y_j] + q_i . Rw[x_i, x_j], with the unscaled query."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..ops.derived import derive_or_differentiate
from .layout import AttentionLayout


def expand_table(table: Tensor, size: int, pool: int = 1) -> Tensor:
    """Expand a table of relative positions along one axis.

    Args:
        table: (L, d), one row for each distance from -(size - 1) to size - 1. A table made for another size is
            resized linearly, as Detectron2 does. Or a matrix (s, s, d), already expanded for s positions: resized
            bicubically, as the paper's code does.
        size: number of positions along the axis.
        pool: the entries of `pool` neighbouring keys are averaged.

    Returns:
        (size, size / pool, d): entry [i, j] belongs to a query at i and a key at j.
    """
    expanded = _resize_matrix(table, size) if table.dim() == 3 else _expand(table, size)
    if pool > 1:
        expanded = expanded.unflatten(1, (size // pool, pool)).mean(2)
    return expanded


def _resize_matrix(matrix: Tensor, size: int) -> Tensor:
    if len(matrix) == size:
        return matrix
    maps = matrix.permute(2, 0, 1)[None]
    return F.interpolate(maps, size=(size, size), mode="bicubic", align_corners=False)[0].permute(1, 2, 0)


def _expand(table: Tensor, size: int) -> Tensor:
    distances = 2 * size - 1
    if table.shape[0] != distances:
        table = F.interpolate(table.t()[None], size=distances, mode="linear")[0].t()
    positions = torch.arange(size, device=table.device)
    return table[positions[:, None] - positions[None, :] + size - 1]


def position_matrix(table: Tensor) -> Tensor:
    """A table (L, d) expanded for the size that it was made for: what `expand_table` resizes as a matrix."""
    size = (table.shape[0] + 1) // 2
    return derive_or_differentiate(table, "position matrix", lambda table: _expand(table, size))


def position_tables(rel_pos_h: Tensor, rel_pos_w: Tensor, layout: AttentionLayout) -> tuple[Tensor, Tensor]:
    """Tables (a, a / p, d) for rows and (b, b / p, d) for columns; kept in inference, differentiable in training."""

    def table(parameter: Tensor, size: int) -> Tensor:
        kind = ("position table", size, layout.pool)
        return derive_or_differentiate(parameter, kind, lambda table: expand_table(table, size, layout.pool))

    height, width = layout.query_grid
    return table(rel_pos_h, height), table(rel_pos_w, width)


def position_terms(q: Tensor, tables: tuple[Tensor, Tensor], layout: AttentionLayout) -> tuple[Tensor, Tensor]:
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


def add_position_terms(scores: Tensor, terms: tuple[Tensor, Tensor], layout: AttentionLayout) -> Tensor:
    """Add the bias to scores (G, a * b, S) in place, and return them."""
    spread = scores.view(-1, *layout.query_grid, *layout.key_grid)
    spread += terms[0][..., :, None]
    spread += terms[1][..., None, :]
    return scores
