"""Decomposed relative positions on a GPU: what they add to a query's scores, for every row and column of keys."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...attention.layout import AttentionLayout
from ...attention.position import position_tables
from .launch import power_of_two, precision, product


@triton.jit
def _position_terms(
    q, row_table, column_table, touched, terms, q_stream, q_token, tokens, width, heads, channels,
    WINDOW: tl.constexpr, WINDOWS_ACROSS: tl.constexpr, WINDOWS: tl.constexpr,
    KEY_ROWS: tl.constexpr, KEY_COLUMNS: tl.constexpr,
    HEADS: tl.constexpr, CHANNELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The terms of one token's queries, all heads: (H, a' + b')."""
    token, stream = tl.program_id(0), tl.program_id(1).to(tl.int64)
    y, x = token // width, token % width
    if WINDOW:
        if touched is not None:
            if tl.load(touched + stream * WINDOWS + y // WINDOW * WINDOWS_ACROSS + x // WINDOW) == 0:
                return
        y, x = y % WINDOW, x % WINDOW
    head, channel = tl.arange(0, HEADS), tl.arange(0, CHANNELS)
    inside = (head < heads)[:, None] & (channel < channels)[None, :]
    query = q + stream * q_stream + token.to(tl.int64) * q_token + head[:, None] * channels + channel[None, :]
    query = tl.load(query, mask=inside, other=0.0)
    out = terms + ((stream * heads + head) * tokens + token)[:, None] * (KEY_ROWS + KEY_COLUMNS)
    row = tl.arange(0, ROWS)
    inside = (channel < channels)[:, None] & (row < KEY_ROWS)[None, :]
    table = row_table + (y * KEY_ROWS + row)[None, :] * channels + channel[:, None]
    table = tl.load(table, mask=inside, other=0.0).to(query.dtype)
    result = product(query, table, tl.zeros((HEADS, ROWS), tl.float32), PRECISION)
    tl.store(out + row[None, :], result, mask=(head < heads)[:, None] & (row < KEY_ROWS)[None, :])
    column = tl.arange(0, COLUMNS)
    inside = (channel < channels)[:, None] & (column < KEY_COLUMNS)[None, :]
    table = column_table + (x * KEY_COLUMNS + column)[None, :] * channels + channel[:, None]
    table = tl.load(table, mask=inside, other=0.0).to(query.dtype)
    result = product(query, table, tl.zeros((HEADS, COLUMNS), tl.float32), PRECISION)
    out += KEY_ROWS + column[None, :]
    tl.store(out, result, mask=(head < heads)[:, None] & (column < KEY_COLUMNS)[None, :])


def position_terms(
    q: Tensor, tables: Sequence[Tensor], heads: int, layout: AttentionLayout, touched: Tensor | None = None
) -> Tensor | None:
    """What relative positions add to the scores of all queries.

    Args:
        q: unscaled queries, (B, N, D); tokens may lie apart.
        tables: of relative positions along rows and columns; empty: none.
        touched: (B, windows) int32, windows whose terms are needed; None: all.

    Returns:
        (B, H, N, a' + b'), float32: a term for each row of keys, then one for each column. None without tables.
    """
    if not tables:
        return None
    streams, tokens, dim = q.shape
    key_rows, key_columns = layout.key_grid
    terms = torch.empty(streams, heads, tokens, key_rows + key_columns, dtype=torch.float32, device=q.device)
    tables = [table.contiguous() for table in position_tables(*tables, layout)]
    warps = 8 if q.dtype is torch.float32 else 4  # with 4, up to 5 kB of a thread's float32 values do not fit
    _position_terms[(tokens, streams)](
        q, *tables, touched, terms, q.stride(0), q.stride(1), tokens, layout.grid[1], heads, dim // heads,
        WINDOW=layout.window, WINDOWS_ACROSS=windows_across(layout), WINDOWS=windows_of(layout), KEY_ROWS=key_rows,
        KEY_COLUMNS=key_columns, HEADS=power_of_two(heads), CHANNELS=power_of_two(dim // heads),
        ROWS=power_of_two(key_rows), COLUMNS=power_of_two(key_columns), PRECISION=precision(q.dtype), num_warps=warps,
    )  # fmt: skip
    return terms


def windows_across(layout: AttentionLayout) -> int:
    """Windows side by side; 1 for the whole grid."""
    return layout.padded_grid[1] // layout.window if layout.window else 1


def windows_of(layout: AttentionLayout) -> int:
    """Windows of a stream; 1 for the whole grid."""
    return layout.windows if layout.window else 1
