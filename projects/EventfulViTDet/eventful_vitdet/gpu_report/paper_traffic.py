"""On paper: what the operators of a later frame read and write, and how many kernels they start.

Every value counts once, as if caches held what a kernel meets again; addresses and numbers per row are counted too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from eventful_vit.attention.layout import AttentionLayout, attention_layout
from eventful_vit.ops.gpu.tuning import split_keys, uses_library

from .report_models import VITDET_B, Form

INDEX, FLOAT = 8, 4
"""Bytes of a place and of a number in float32."""
PATCH = 16
"""Side of a patch of ViTDet-B in pixels."""


@dataclass(frozen=True)
class Step:
    """One call of an operator, or a conversion between types."""

    operator: str
    what: str
    kernels: int
    """Triton kernels that it starts."""
    others: int
    """Kernels of PyTorch: fills, sums, conversions, products of its library (counted as one each)."""
    read: int
    written: int
    """Bytes."""


@dataclass(frozen=True)
class Shape:
    """A later frame of one stream in `exact` attention, in a form with short products."""

    grid: tuple[int, int]
    dim: int
    heads: int
    hidden: int
    """Of the MLP."""
    window: int
    r: int
    form: Form

    def __post_init__(self) -> None:
        if self.products >= FLOAT:
            raise ValueError(f"{self.form.name}: linear layers of float32 run in PyTorch's library, which starts what "
                             "it likes; choose a form with products in a short type")  # fmt: skip

    @property
    def n(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def tokens(self) -> int:
        """Bytes of a value of the residual stream."""
        return self.form.tokens.itemsize

    @property
    def products(self) -> int:
        return (self.form.products or self.form.tokens).itemsize

    @property
    def state(self) -> int:
        return self.products

    def layout(self, windowed: bool) -> AttentionLayout:
        return attention_layout(*self.grid, self.window if windowed else 0)


def block_steps(s: Shape, windowed: bool) -> list[Step]:
    """The operators of a block, in order."""
    attention = _windows(s) if windowed else _sums(s)
    values = s.n * s.dim
    return [
        *_gate(s, "before attention", s.tokens, normalised=True),
        *_linear(s, "queries, keys, values", s.dim, 3 * s.dim),
        *attention,
        *_gate(s, "before the projection", s.state, normalised=False),
        *_linear(s, "projection", s.dim, s.dim),
        _store(s, "projection", s.dim),
        *_gate(s, "before the MLP, after the projection's addition", s.tokens, normalised=True, adds=True),
        *_linear(s, "MLP, first layer with GELU", s.dim, s.hidden, gelu=True),
        *_linear(s, "MLP, second layer", s.hidden, s.dim),
        _store(s, "MLP", s.dim),
        Step("add", "MLP", 1, 0, values * (s.tokens + s.state), values * s.tokens),
    ]


def embedding_steps(s: Shape, inputs: int) -> list[Step]:
    """From a float32 frame, or one in the type of the tokens, to tokens with positions: a product of all patches.

    Args:
        inputs: values of a patch.
    """
    patches, tokens = s.n * inputs, s.n * s.dim
    read = patches * s.products + _weights(s, inputs, s.dim)
    steps = [Step("embed: patches", "", 1, 0, patches * s.tokens, patches * s.products)]
    if uses_library(s.n, inputs, s.dim, True):
        steps.append(Step("embed: product", "", 0, 1, read, tokens * s.products))
        read = tokens * s.products
    return [*steps, Step("embed: tokens", "with positions", 1, 0, read + tokens * s.tokens, tokens * s.tokens)]


def _gate(s: Shape, what: str, size: int, normalised: bool, adds: bool = False) -> Iterable[Step]:
    """Of values of some bytes. Rows come out in the type of the products."""
    affine = 2 * s.dim * s.tokens if normalised else 0
    values, rows = s.n * s.dim, s.r * s.dim
    read, written = values * (size + s.state) + affine, s.n * FLOAT
    if adds:
        read, written = read + values * s.state, written + values * size
    yield Step("gate: error norms", what, 1, 0, read, written)
    yield Step("gate: selection", what, 1, 0, s.n * FLOAT, s.r * INDEX)
    yield Step("gate: chosen rows", what, 1, 0, rows * size + s.r * INDEX + affine, rows * (s.products + s.state))


def _weights(s: Shape, inputs: int, outputs: int) -> int:
    return (inputs + 1) * outputs * s.products


def _linear(s: Shape, what: str, inputs: int, outputs: int, gelu: bool = False) -> Iterable[Step]:
    rows, result = s.r * inputs * s.products, s.r * outputs * s.products
    if not uses_library(s.r, inputs, outputs, gelu):
        yield Step("linear", what, 1, 0, rows + _weights(s, inputs, outputs), result)
        return
    yield Step("linear", what, 0, 1, rows + _weights(s, inputs, outputs), result)
    if gelu:
        yield Step("linear", what, 1, 0, result, result)


def _store(s: Shape, what: str, width: int) -> Step:
    return Step("store", what, 1, 0, s.r * (width * s.products + INDEX), s.r * width * s.state)


def _windows(s: Shape) -> Iterable[Step]:
    """Windowed attention, at worst: selected tokens in all windows."""
    layout, width = s.layout(True), 3 * s.dim
    yield _store(s, "queries, keys, values", width)
    marks = layout.windows * 4 + INDEX
    terms = s.heads * s.n * sum(layout.key_grid) * min(FLOAT, s.state)
    tables = 2 * s.window**2 * (s.dim // s.heads) * FLOAT
    yield Step("attend_windows: marks", "", 1, 1, s.r * INDEX + marks, 2 * marks)
    yield Step("attend_windows: position terms", "", 1, 0, s.n * s.dim * s.state + tables, terms)
    yield Step("attend_windows: attention", "all windows", 1, 0, s.n * width * s.state + terms, s.n * s.dim * s.state)


def _sums(s: Shape) -> Iterable[Step]:
    """Global attention; no unchanged query drifted."""
    layout, width = s.layout(False), 3 * s.dim
    pairs, channels = s.heads * s.n, s.dim // s.heads
    rows, kept = s.r * width, s.r * 2 * s.dim
    yield Step("replace", "queries, keys, values", 1, 0, rows * s.products + s.r * INDEX + kept * s.state,
               (rows + kept) * s.state)  # fmt: skip
    term = sum(layout.key_grid) * min(FLOAT, s.state)  # of a query
    terms = pairs * term
    tables = sum(side**2 for side in s.grid) * channels * FLOAT
    sums, numbers = pairs * channels * FLOAT, 3 * pairs * FLOAT
    yield Step("update_sums: position terms", "", 1, 0, s.n * s.dim * s.state + tables, terms)
    marks = pairs + s.n
    yield Step("update_sums: marks", "", 1, 1, s.r * INDEX, marks + s.r)
    exchanged = s.n * s.dim * s.state + 2 * kept * s.state + terms + sums + numbers + s.n
    yield Step("update_sums: exchange", "", 1, 0, exchanged, sums + 2 * pairs * FLOAT + s.heads * s.r)
    yield Step("update_sums: list and count", "", 2, 0, pairs, s.heads * (s.r + 1) * 4 + 2 * INDEX)
    changed = s.heads * s.r
    recomputed = s.n * 2 * s.dim * s.state + s.r * s.dim * s.state + changed * (term + FLOAT)
    splits = split_keys(1, s.heads)
    parts, written = splits * changed * (channels + 2) * FLOAT, changed * (channels + 3) * FLOAT
    if splits > 1:
        yield Step("update_sums: changed queries", "in parts", 1, 0, recomputed, parts)
        yield Step("update_sums: changed queries", "put together", 1, 0, parts, written)
    else:
        yield Step("update_sums: changed queries", "", 1, 0, recomputed, written)
    yield Step("divide", "", 1, 0, sums + pairs * FLOAT, s.n * s.dim * s.state)


def vitdet_b(size: int, r: int, form: Form) -> Shape:
    """ViTDet-B on square frames."""
    dim, side = VITDET_B["embed_dim"], size // PATCH
    return Shape((side, side), dim, VITDET_B["num_heads"], 4 * dim, VITDET_B["window_size"], r, form)


def frame_table(size: int, r: int, form: Form) -> list[dict]:
    """The steps of a later frame of ViTDet-B by operator, largest traffic first, and their sum."""
    shape = vitdet_b(size, r, form)
    windowed = len(VITDET_B["window_block_indexes"])
    parts = (
        (1, embedding_steps(shape, 3 * PATCH**2)),
        (windowed, block_steps(shape, True)),
        (VITDET_B["depth"] - windowed, block_steps(shape, False)),
    )
    rows: dict[str, dict] = {}
    for times, steps in parts:
        for step in steps:
            row = rows.setdefault(step.operator, dict(operator=step.operator, kernels=0, others=0, read=0, written=0))
            for key in ("kernels", "others", "read", "written"):
                row[key] += times * getattr(step, key)
    ordered = sorted(rows.values(), key=lambda row: -(row["read"] + row["written"]))
    keys = ("kernels", "others", "read", "written")
    return [*ordered, {"operator": "whole frame", **{key: sum(row[key] for row in ordered) for key in keys}}]


def state_bytes(shape: Shape, windowed_blocks: int, global_blocks: int) -> int:
    """State of a stream: references and buffers of all blocks, and the sums of the global ones."""
    values = shape.n * shape.dim
    shared = 3 + 3 + 2  # references of three gates; queries, keys, values; two buffers
    block = shared * values * shape.state
    pairs = shape.heads * shape.n
    sums = values * FLOAT + 3 * pairs * FLOAT
    return windowed_blocks * (block + values * shape.state) + global_blocks * (block + sums)
