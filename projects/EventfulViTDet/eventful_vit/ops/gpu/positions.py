"""Decomposed relative positions on a GPU: what they add to a query's scores, for every row and column of keys.

Where keys are whole rows of the grid, a tile of scores takes its terms as they are. Elsewhere the terms are a matrix
product, which matrix units do at once: a query's terms times a row of zeros with two ones, at the key's row and column.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...attention.layout import AttentionLayout
from ...attention.position import position_tables
from .. import tape
from ..derived import wait_until_made
from .launch import power_of_two, precision, product
from .tuning import position_queries

LARGEST = tl.constexpr(65504.0)
"""What float16 holds."""


@triton.jit
def _terms_of_line(
    q, table, terms, stream, line, number, q_token, height, width, heads, channels, per_unit,
    ALONG_ROWS: tl.constexpr, WINDOW: tl.constexpr, KEYS: tl.constexpr, WIDTH: tl.constexpr,
    CHANNELS: tl.constexpr, LINES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The terms of queries (T,) of a line, a row of the grid or a column, which share a piece (KEYS, d) of the table.

    Args:
        number: heads * (place in the line) + head.
    """
    along, head = number // heads, number % heads
    if ALONG_ROWS:
        token, is_query = line * width + along, along < width
    else:
        token, is_query = along * width + line, along < height
    channel = tl.arange(0, CHANNELS)[None, :]
    place = token.to(tl.int64)[:, None] * q_token + head[:, None] * channels + channel
    query = tl.load(q + place, mask=is_query[:, None] & (channel < channels), other=0.0)
    if WINDOW:
        line = line % WINDOW
    key = tl.arange(0, LINES)
    inside = (key < KEYS)[:, None] & (channel < channels)
    rows = tl.load(table + (line * KEYS + key)[:, None] * channels + channel, mask=inside, other=0.0).to(query.dtype)
    result = product(query, tl.trans(rows), tl.zeros((number.shape[0], LINES), tl.float32), PRECISION) * per_unit
    if query.dtype != tl.float32:
        result = tl.minimum(tl.maximum(result, -LARGEST), LARGEST)
    if terms.dtype.element_ty == tl.float32:
        # To 22 bits, which products in two parts take without rounding: a term is the same wherever it is used.
        result = ((result.to(tl.int32, bitcast=True) + 2) & -4).to(tl.float32, bitcast=True)
    place = ((stream * heads + head) * (height * width) + token)[:, None] * WIDTH + key[None, :]
    tl.store(terms + place, result.to(terms.dtype.element_ty), mask=is_query[:, None] & (key < KEYS)[None, :])


@triton.jit
def _position_terms(
    q, row_table, column_table, terms, q_stream, q_token, height, width, heads, channels, per_unit,
    WINDOW: tl.constexpr, KEY_ROWS: tl.constexpr, KEY_COLUMNS: tl.constexpr,
    CHANNELS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, QUERIES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The terms of some queries, of all heads, in one row of the grid along rows, or in one column along columns."""
    stream = tl.program_id(1).to(tl.int64)
    q += stream * q_stream
    per_row, per_column = tl.cdiv(width * heads, QUERIES), tl.cdiv(height * heads, QUERIES)
    program = tl.program_id(0)
    of_column = program - height * per_row
    number = tl.arange(0, QUERIES)
    if of_column < 0:
        _terms_of_line(
            q, row_table, terms, stream, program // per_row, program % per_row * QUERIES + number, q_token, height,
            width, heads, channels, per_unit,
            True, WINDOW, KEY_ROWS, KEY_ROWS + KEY_COLUMNS, CHANNELS, ROWS, PRECISION,
        )  # fmt: skip
    else:
        _terms_of_line(
            q, column_table, terms + KEY_ROWS, stream, of_column // per_column,
            of_column % per_column * QUERIES + number, q_token, height, width, heads, channels, per_unit,
            False, WINDOW, KEY_COLUMNS, KEY_ROWS + KEY_COLUMNS, CHANNELS, COLUMNS, PRECISION,
        )  # fmt: skip


@triton.jit
def load_terms(
    terms, place, is_query, WIDTH: tl.constexpr, POSITIONS: tl.constexpr, IN_PARTS: tl.constexpr, DTYPE: tl.constexpr
):  # fmt: skip
    """All terms of queries at places (T,) of (B, H, N), as `add_terms` takes them: (T, POSITIONS) twice.

    Args:
        IN_PARTS: whether they are split into two numbers, which are multiplied in DTYPE.
    """
    position = tl.arange(0, POSITIONS)[None, :]
    inside = is_query[:, None] & (position < WIDTH)
    high = tl.load(terms + place[:, None] * WIDTH + position, mask=inside, other=0.0)
    low = high
    if IN_PARTS:
        high, low = _split(high, DTYPE)
    return high, low


@triton.jit
def _split(terms, DTYPE: tl.constexpr):
    """Terms in the type that they are multiplied in, and what is left of them then."""
    high = terms.to(DTYPE)
    return high, (terms - high.to(tl.float32)).to(DTYPE)


@triton.jit
def add_terms(high, low, ones, scores, IN_PARTS: tl.constexpr, PRECISION: tl.constexpr):
    """Scores of a tile of queries and keys, plus the terms that the keys' pattern asks for.

    Args:
        IN_PARTS: whether terms are a sum of two (`load_terms`): one number in 16 bits is too short for float16 models.
    """
    if IN_PARTS:
        scores = product(low, tl.trans(ones), scores, PRECISION)
    return product(high, tl.trans(ones), scores, PRECISION)


def position_terms(
    q: Tensor, tables: Sequence[Tensor], heads: int, scale: float, layout: AttentionLayout
) -> Tensor | None:
    """What relative positions add to the scores of all queries, in units of products of queries and keys.

    Args:
        q: unscaled queries, (B, N, D); tokens may lie apart.
        tables: of relative positions along rows and columns; empty: none.
        scale: of the products.

    Returns:
        (B, H, N, a' + b'): a term for each row of keys, then one for each column; in float16 for queries in bfloat16,
        whose products are no more precise, and in float32 for others. None without tables.
    """
    if not tables:
        return None
    streams, tokens, dim = q.shape
    (height, width), (key_rows, key_columns) = layout.grid, layout.key_grid
    dtype = torch.float16 if q.dtype is torch.bfloat16 else torch.float32
    terms = torch.empty(streams, heads, tokens, key_rows + key_columns, dtype=dtype, device=q.device)
    tables = [table.contiguous() for table in position_tables(*tables, layout)]
    queries = position_queries(q.dtype, dim // heads)
    programs = height * triton.cdiv(width * heads, queries) + width * triton.cdiv(height * heads, queries)
    _position_terms[(programs, streams)](
        q, *tables, terms, q.stride(0), q.stride(1), height, width, heads, dim // heads, 1 / scale,
        WINDOW=layout.window, KEY_ROWS=key_rows, KEY_COLUMNS=key_columns, CHANNELS=power_of_two(dim // heads),
        ROWS=power_of_two(key_rows), COLUMNS=power_of_two(key_columns), QUERIES=queries, PRECISION=precision(q.dtype),
    )  # fmt: skip
    return terms


def position_pattern(layout: AttentionLayout, q: Tensor) -> Tensor:
    """For each key of a group ones at its row and at its column, (a' b', 2^n >= a' + b'): terms times this are what is
    added to the scores. In float16, or for queries in float32 in float32."""
    rows, columns = layout.key_grid
    dtype = torch.float32 if q.dtype is torch.float32 else torch.float16
    pattern = _pattern(rows, columns, power_of_two(rows + columns), dtype, q.device)
    tape.hold(pattern)  # a recorded frame reads it longer than it may be kept here
    return pattern


@lru_cache(maxsize=64)
def _pattern(rows: int, columns: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    key = torch.arange(rows * columns, device=device)
    pattern = torch.zeros(len(key), width, dtype=dtype, device=device)
    pattern[key, key // columns] = 1
    pattern[key, rows + key % columns] = 1
    wait_until_made(device)
    return pattern


def windows_across(layout: AttentionLayout) -> int:
    """Windows side by side; 1 for the whole grid."""
    return layout.padded_grid[1] // layout.window if layout.window else 1


def windows_of(layout: AttentionLayout) -> int:
    """Windows of a stream; 1 for the whole grid."""
    return layout.windows if layout.window else 1
