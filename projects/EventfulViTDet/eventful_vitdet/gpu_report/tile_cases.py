"""The branches of ops/gpu/tuning.py: which work each of them decides on, and what is tried for it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from eventful_vit import ops
from eventful_vit.ops.gpu import tuning
from torch import Tensor

Tile = dict[str, int]

MODULES = {"linear_tile": "linear", "attention_tile": "attention", "exchange_tile": "sums"}
"""The module of ops/gpu that asks each function of the table."""


@dataclass(frozen=True)
class Work:
    """Work that one branch decides on."""

    name: str
    arguments: tuple
    """Of the table's function."""
    prepare: Callable[[torch.device], Callable[[], object]]
    """Makes arguments, and returns what is to be timed."""


@dataclass(frozen=True)
class Branch:
    """One `return` of a function of the table."""

    function: str
    condition: str | None
    """What leads to it, in Python, over the function's parameters; None: everything else."""
    works: tuple[Work, ...]
    tiles: tuple[Tile, ...] = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.function}: {self.condition or 'otherwise'}"


@dataclass(frozen=True)
class Layer:
    """A linear layer of bfloat16."""

    rows: int
    inputs: int
    outputs: int
    gelu: bool = False
    plus: bool = False
    """A residual stream in float32 is added."""

    @property
    def name(self) -> str:
        ending = f"{', GELU' if self.gelu else ''}{', sum' if self.plus else ''}"
        return f"{self.rows} x {self.inputs} -> {self.outputs}{ending}"

    def prepare(self, device: torch.device) -> dict[str, Callable[[], Tensor]]:
        """Both ways to compute it."""
        x, weight = (torch.randn(n, self.inputs, device=device).bfloat16() for n in (self.rows, self.outputs))
        bias = torch.randn(self.outputs, device=device).bfloat16()
        added = torch.randn(self.rows, self.outputs, device=device) if self.plus else None
        module = importlib.import_module(f"eventful_vit.ops.gpu.{MODULES['linear_tile']}")
        out = torch.empty(self.rows, self.outputs, device=device, dtype=torch.float32 if self.plus else torch.bfloat16)
        arguments = (x, weight, bias, self.gelu, added, None)

        def kernel() -> Tensor:
            module.linear_by_kernel(*arguments, out, self.outputs)
            return out

        return {"library": lambda: module.linear_by_library(*arguments, out.dtype), "kernel": kernel}


LAYERS = tuple(
    Layer(rows, *layer)
    for rows in (64, 256, 512, 1024, 4096)
    for layer in ((768, 2304), (768, 768), (768, 3072, True), (3072, 768), (768, 768, False, True))
)
"""Those of ViTDet-B: `uses_library` chooses how each is computed."""


def _linear(rows: int, inputs: int, outputs: int, gelu: bool = False, plus: bool = False) -> Work:
    layer = Layer(rows, inputs, outputs, gelu, plus)
    return Work(f"{rows} x {inputs} -> {outputs}", (rows, outputs), lambda device: layer.prepare(device)["kernel"])


def _attend(dtype: torch.dtype, side: int, window: int, heads: int, channels: int) -> Work:
    queries = window**2 if window else side**2

    def prepare(device: torch.device) -> Callable[[], object]:
        qkv, sizes = _attention_arguments(dtype, side, window, heads, channels, device)
        return lambda: ops.attend(qkv, None, *sizes, dtype)

    what = f"windows of {window}" if window else "whole grid"
    return Work(f"{what}, {side} x {side}, {heads} heads of {channels}", (dtype, channels, queries), prepare)


def _update(dtype: torch.dtype, side: int, heads: int, channels: int, r: int, function: str) -> Work:
    def prepare(device: torch.device) -> Callable[[], object]:
        qkv, sizes = _attention_arguments(dtype, side, 0, heads, channels, device)
        dim, shape = heads * channels, (1, heads, side**2)
        state = [torch.zeros(*shape, channels, device=device), *(torch.zeros(shape, device=device) for _ in range(3))]
        index, offsets = torch.arange(r, device=device), torch.tensor([0, r], device=device)
        q, kv = qkv[..., :dim], qkv[..., dim:]
        old = kv[0, :r].contiguous()
        ops.update_sums(q, kv, [], state, *sizes)

        def run() -> None:
            state[3].fill_(1.0)  # or the error bounds of all queries would be exceeded after some fifty calls
            ops.update_sums(q, kv, [index, offsets, index, offsets, old], state, *sizes)

        return run

    arguments = (dtype, channels) if function == "exchange_tile" else (dtype, channels, 0)
    return Work(f"r = {r} of {side} x {side}, {heads} heads of {channels}", arguments, prepare)


def _attention_arguments(
    dtype: torch.dtype, side: int, window: int, heads: int, channels: int, device: torch.device
) -> tuple[torch.Tensor, tuple]:
    qkv = torch.randn(1, side**2, 3 * heads * channels, device=device).to(dtype)
    tables = [torch.randn(2 * (window or side) - 1, channels, device=device) for _ in range(2)]
    return qkv, (tables, heads, channels**-0.5, (side, side, window, 1))


def _tiles(names: tuple[str, ...], *values: tuple[int, ...]) -> tuple[Tile, ...]:
    return tuple(dict(zip((*names, "num_warps", "num_stages"), row)) for row in values)


def _linear_tiles(*values: tuple[int, ...]) -> tuple[Tile, ...]:
    tiles = _tiles(("ROWS", "COLUMNS", "DEPTH", "TMA"), *values)
    return tuple({**tile, "TMA": bool(tile["TMA"])} for tile in tiles)


def _attention_tiles(*values: tuple[int, ...]) -> tuple[Tile, ...]:
    return _tiles(("QUERIES", "KEYS"), *values)


def _limited(registers: int, *values: tuple[int, ...]) -> tuple[Tile, ...]:
    """Tiles whose threads have so many registers at most."""
    return tuple({**tile, "maxnreg": registers} for tile in _attention_tiles(*values))


_SHORT, _PRECISE = torch.bfloat16, torch.float32

BRANCHES = (
    Branch(
        "linear_tile", "rows <= SMALL_ROWS", (_linear(16, 768, 2304), _linear(64, 768, 3072, True)),
        _linear_tiles((16, 32, 128, 0, 4, 4), (16, 64, 128, 0, 4, 4), (32, 64, 128, 0, 4, 4), (64, 64, 64, 1, 4, 4),
                      (64, 32, 64, 1, 4, 6), (64, 32, 128, 1, 4, 4)),
    ),
    Branch(
        "linear_tile", "rows <= 1024", (_linear(256, 768, 3072, True), _linear(512, 768, 3072, True)),
        _linear_tiles((64, 64, 64, 0, 4, 3), (64, 64, 128, 0, 4, 3), (128, 64, 64, 0, 4, 3), (128, 128, 64, 0, 8, 3),
                      (64, 64, 64, 1, 4, 4), (64, 128, 64, 1, 4, 3), (128, 64, 64, 1, 4, 4), (128, 128, 64, 1, 4, 3)),
    ),
    Branch(
        "linear_tile", None, (_linear(4096, 768, 3072, True), _linear(4096, 768, 768, False, True)),
        _linear_tiles((128, 128, 64, 0, 4, 3), (128, 128, 64, 0, 8, 4), (128, 256, 64, 0, 8, 3),
                      (64, 128, 64, 1, 4, 4), (128, 128, 64, 1, 8, 3), (256, 128, 64, 1, 8, 3),
                      (128, 256, 64, 1, 8, 4)),
    ),
    Branch(
        "attention_tile", "channels > 128", (_attend(_SHORT, 32, 0, 3, 256), _attend(_PRECISE, 32, 0, 3, 256)),
        _attention_tiles((32, 16, 4, 1), (16, 16, 4, 2)),
    ),
    Branch(
        "attention_tile", "dtype is torch.float32 and channels > 64",
        (_attend(_PRECISE, 32, 14, 16, 80), _attend(_PRECISE, 32, 0, 16, 80)),
        _attention_tiles((16, 16, 4, 2), (32, 32, 4, 2), (32, 32, 8, 2)),
    ),
    Branch(
        "attention_tile", "dtype is torch.float32 and 0 < queries < LARGE_GROUP", (_attend(_PRECISE, 64, 14, 12, 64),),
        _attention_tiles((32, 16, 4, 2), (64, 64, 4, 2), (32, 32, 8, 2), (64, 32, 4, 2)),
    ),
    Branch(
        "attention_tile", "dtype is torch.float32",
        (_attend(_PRECISE, 64, 0, 12, 64), _update(_PRECISE, 64, 12, 64, 512, "attention_tile")),
        _attention_tiles((32, 32, 4, 2), (64, 32, 4, 2), (128, 64, 8, 2)),
    ),
    Branch(
        "attention_tile", "channels > 64",
        (_attend(_SHORT, 32, 14, 16, 80), _attend(_SHORT, 64, 0, 16, 80),
         _update(_SHORT, 64, 16, 80, 512, "attention_tile")),
        _attention_tiles((64, 32, 4, 3), (64, 64, 4, 2), (64, 64, 4, 3), (128, 64, 8, 2)),
    ),
    Branch(
        "attention_tile", "0 < queries < LARGE_GROUP", (_attend(_SHORT, 64, 14, 12, 64),),
        _attention_tiles((64, 64, 4, 2), (64, 32, 4, 2), (128, 32, 8, 3), (64, 32, 4, 4)),
    ),
    Branch(
        "attention_tile", None,
        (_attend(_SHORT, 64, 0, 12, 64), _update(_SHORT, 64, 12, 64, 512, "attention_tile")),
        _attention_tiles((64, 64, 4, 2), (64, 64, 4, 4), (128, 64, 8, 3), (64, 32, 4, 3)),
    ),
    Branch(
        "exchange_tile", "channels > 128",
        (_update(_SHORT, 32, 3, 256, 128, "exchange_tile"), _update(_PRECISE, 32, 3, 256, 128, "exchange_tile")),
        _attention_tiles((32, 16, 4, 1), (16, 16, 4, 2)),
    ),
    Branch(
        "exchange_tile", "dtype is torch.float32 and channels > 64",
        (_update(_PRECISE, 32, 16, 80, 128, "exchange_tile"),),
        _attention_tiles((32, 16, 4, 1), (32, 32, 4, 1)),
    ),
    Branch(
        "exchange_tile", "dtype is torch.float32", (_update(_PRECISE, 64, 12, 64, 512, "exchange_tile"),),
        _attention_tiles((32, 32, 4, 3), (64, 32, 4, 1), (32, 16, 4, 1)),
    ),
    Branch(
        "exchange_tile", "channels > 64", (_update(_SHORT, 64, 16, 80, 512, "exchange_tile"),),
        _attention_tiles((64, 16, 4, 2), (64, 32, 4, 3), (128, 64, 8, 2), (128, 32, 8, 2)),
    ),
    Branch(
        "exchange_tile", None, (_update(_SHORT, 64, 12, 64, 512, "exchange_tile"),),
        _limited(128, (64, 32, 4, 2), (128, 32, 8, 2)) + _limited(168, (64, 32, 4, 3), (64, 16, 4, 3))
        + _limited(255, (128, 64, 8, 2), (64, 64, 4, 2)),
    ),
)  # fmt: skip
"""In the order of their functions' branches."""


def present_tile(branch: Branch, work: Work) -> Tile:
    """What the table says now."""
    return getattr(tuning, branch.function)(*work.arguments)
