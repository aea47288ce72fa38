"""The compiled kernels as functions of tensors, with the shapes and results of the PyTorch operations they replace."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from .build import load_library

SUFFIXES = {torch.float32: "f32", torch.bfloat16: "bf16"}
"""Types of state that the kernels read and write. Inside they compute in float32."""

GATE_GRAIN = 2**16
"""Values of tokens that are worth a thread of their own; waking one takes some ten microseconds."""
PRODUCT_GRAIN = 2**19
"""MACs of attention or linear layers that are worth a thread of their own."""

_void, _int, _long, _float = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_float


class _Problem(ctypes.Structure):
    _fields_ = [
        ("q", _void),
        ("k", _void),
        ("v", _void),
        ("q_stride", _long),
        ("kv_stride", _long),
        ("padding", _void),
        ("row_table", _void),
        ("column_table", _void),
        ("heads", _int),
        ("channels", _int),
        ("rows", _int),
        ("columns", _int),
        ("key_rows", _int),
        ("key_columns", _int),
        ("scale", _float),
        ("threads", _int),
    ]


class _Sums(ctypes.Structure):
    _fields_ = [("sums", _void), ("normalisers", _void), ("references", _void), ("drift", _void)]


class _Change(ctypes.Structure):
    _fields_ = [("renew", _void), ("keys", _void), ("old", _void), ("count", _long)]


class _Limits(ctypes.Structure):
    _fields_ = [("score", _float), ("drift", _float), ("rounding", _float)]


class _Product(ctypes.Structure):
    _fields_ = [
        ("rows", _void),
        ("count", _long),
        ("inputs", _int),
        ("outputs", _int),
        ("weights", _void),
        ("bias", _void),
        ("gelu", _int),
        ("out", _void),
        ("threads", _int),
    ]


class _Windows(ctypes.Structure):
    _fields_ = [("of_token", _void), ("members", _void), ("count", _long), ("tokens", _long)]


class _Norm(ctypes.Structure):
    _fields_ = [("weight", _void), ("bias", _void), ("eps", _float)]


_NO_NORM = _Norm(None, None, 0.0)


def usable(*tensors: Tensor) -> bool:
    """Whether the kernels are there and can work on these tensors.

    They are not used under a dispatch mode (an operation counter, fake tensors): it would not see what they do.
    """
    if torch.is_grad_enabled() or _get_current_dispatch_mode() is not None or load_library() is None:
        return False
    for x in tensors:
        if not x.is_cpu or x.dtype not in SUFFIXES:
            return False
    return True


@dataclass(frozen=True)
class AttentionProblem:
    """Attention inside groups of tokens, by row and column of a grid."""

    q: Tensor
    """Queries, unscaled: rows (N, D) of any stride."""
    k: Tensor
    """Keys, (S, D)."""
    v: Tensor
    """Values, (S, D), with the stride of `k`."""
    heads: int
    scale: float
    query_grid: tuple[int, int]
    key_grid: tuple[int, int]
    tables: tuple[Tensor, Tensor] | None
    """Relative positions for rows and for columns, as `pack_positions` makes them."""
    padding: Tensor | None = None
    """What a padding token has for q, k and v, (3D,), in their type; zeros where None."""

    def build(self, pairs: int) -> _Problem:
        """The C structure, which must not outlive this object; `pairs` of queries and keys are to be computed."""
        assert self.k.stride() == self.v.stride() and self.q.stride(-1) == self.k.stride(-1) == 1
        return _Problem(
            *(x.data_ptr() for x in (self.q, self.k, self.v)),
            self.q.stride(0),
            self.k.stride(0),
            None if self.padding is None else self.padding.data_ptr(),
            *((None, None) if self.tables is None else (table.data_ptr() for table in self.tables)),
            self.heads,
            self.q.shape[-1] // self.heads,
            *self.query_grid,
            *self.key_grid,
            self.scale,
            _threads(2 * pairs * self.q.shape[-1], PRODUCT_GRAIN),
        )


def pack_positions(table: Tensor) -> Tensor:
    """Relative positions (a, a', d) as the kernels read them: (a, d, a'), a' filled up to whole vectors, in float32."""
    filling = -table.shape[1] % _function("vector_length")()
    return nn.functional.pad(table.float().transpose(1, 2), (0, filling)).contiguous()


def attend_groups(problem: AttentionProblem, members: Tensor | None, out: Tensor) -> None:
    """Dense attention inside groups of tokens.

    Args:
        members: tokens of each group, (G, a * b), -1 for padding; None: one group, all tokens in order.
        out: (N, D), written at the groups' tokens; type of the queries.
    """
    keys = problem.key_grid[0] * problem.key_grid[1]
    native = problem.build(keys * (len(out) if members is None else members.numel()))
    groups = 1 if members is None else len(members)
    pointer = None if members is None else members.data_ptr()
    run = _function("attend_groups", problem.q.dtype)
    run(ctypes.byref(native), pointer, groups, out.data_ptr(), out.stride(0))


def attend_touched(
    problem: AttentionProblem, of_token: Tensor, members: Tensor, index: Tensor, out: Tensor
) -> list[int]:
    """Dense attention inside the windows that hold a selected token; the others' output stays.

    Args:
        problem: with the queries, keys and values of all streams' tokens, (B * N, D).
        of_token: the window of each token of a stream, (N,).
        members: tokens of each window, (windows, a * b), -1 for padding.
        index: selected tokens (R,) of all B * N.
        out: (B * N, D), written at the windows' tokens; type of the queries.

    Returns:
        The number of touched windows in each stream.
    """
    streams, size = len(out) // len(of_token), members.shape[1]
    groups = min(len(index), streams * len(members))
    native = problem.build(groups * size * size)
    windows = _Windows(of_token.data_ptr(), members.data_ptr(), len(members), len(of_token))
    touched = (_long * streams)()
    run = _function("attend_touched", problem.q.dtype)
    run(ctypes.byref(native), ctypes.byref(windows), index.data_ptr(), len(index), streams, out.data_ptr(),
        out.stride(0), touched)  # fmt: skip
    return list(touched)


def update_sums(
    problem: AttentionProblem,
    sums: tuple[Tensor, Tensor, Tensor, Tensor],
    renew: Tensor | None,
    keys: Tensor,
    old: Tensor,
    limits: tuple[float, float, float],
) -> tuple[int, int]:
    """Bring the sums of `exact` attention up to date.

    Args:
        sums: U (H, N, d), Z, m and drift (H, N).
        renew: per token, whether its query is new, (N,) bool; None: compute every query anew.
        keys: changed keys, (kk,).
        old: their former keys and values, (kk, 2D).
        limits: score, drift and rounding limits.

    Returns:
        Numbers of (head, query) pairs: whose terms were exchanged, and that were computed anew.
    """
    native = problem.build(len(problem.q) * (len(problem.k) if renew is None else 2 * len(keys)))
    executed = (_long * 2)()
    change = _Change(None if renew is None else renew.data_ptr(), keys.data_ptr(), old.data_ptr(), len(keys))
    _function("update", problem.q.dtype)(
        *map(ctypes.byref, (native, _Sums(*(x.data_ptr() for x in sums)), change, _Limits(*limits))), executed
    )
    return executed[0], executed[1]


class PackedWeights:
    """Keeps the weights of a linear layer in the order that `linear` reads them.

    They are packed anew when the parameter is another one or was written to. Writing to `parameter.data` leaves no
    trace that PyTorch shows, so some values are compared each time too.
    """

    def __init__(self) -> None:
        self._source: tuple[int, int] | None = None
        self._packed: Tensor | None = None

    def of(self, parameter: Tensor) -> Tensor:
        """The packed weights of a parameter (outputs, ...) in float32."""
        source = (parameter.data_ptr(), parameter._version)
        if self._packed is None or self._source != source or not self._agrees(parameter):
            self._packed = _pack(parameter.detach().flatten(1).contiguous())
            self._source = source
        return self._packed

    def _agrees(self, parameter: Tensor) -> bool:
        outputs = len(parameter)
        inputs = parameter.numel() // outputs
        return _function("packed_agrees")(parameter.data_ptr(), outputs, inputs, self._packed.data_ptr())

    def clear(self) -> None:
        """Free the copy."""
        self._packed = None


def _pack(weight: Tensor) -> Tensor:
    packed = weight.new_empty(_function("packed_size")(*weight.shape))
    _function("pack")(weight.data_ptr(), *weight.shape, packed.data_ptr(), _threads(weight.numel(), GATE_GRAIN))
    return packed


def linear(rows: Tensor, packed: Tensor, outputs: int, bias: Tensor | None, gelu: bool = False) -> Tensor:
    """rows (..., inputs) times packed weights, plus bias -> (..., outputs), and their GELU where asked for."""
    rows = rows.contiguous()
    inputs = rows.shape[-1]
    out = rows.new_empty(*rows.shape[:-1], outputs)
    count = rows.numel() // inputs
    pointers = (packed.data_ptr(), None if bias is None else bias.data_ptr(), gelu, out.data_ptr())
    threads = _threads(count * inputs * outputs, PRODUCT_GRAIN)
    _function("linear")(ctypes.byref(_Product(rows.data_ptr(), count, inputs, outputs, *pointers, threads)))
    return out


def error_norms(x: Tensor, reference: Tensor, norm: nn.LayerNorm | None) -> Tensor:
    """|norm(x) - reference| of every token: x (B, N, D) in float32, reference (B, N, D) -> (B, N)."""
    result = x.new_empty(x.shape[:-1])
    _function("errors", reference.dtype)(*_tokens(x, reference, norm), result.data_ptr())
    return result


def take_rows(x: Tensor, reference: Tensor, index: Tensor, norm: nn.LayerNorm | None) -> Tensor:
    """norm(x) at some tokens (R,) of all B * N, packed (R, D); it is stored in the reference too."""
    rows = x.new_empty(len(index), x.shape[-1])
    _function("take", reference.dtype)(*_tokens(x, reference, norm), index.data_ptr(), len(index), rows.data_ptr())
    return rows


def gate(x: Tensor, reference: Tensor, norm: nn.LayerNorm | None, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The `count` tokens of each stream that differ most from the reference, which takes their new values.

    Returns:
        The error norms (B, N); indices (B * count,) into all B * N tokens, ascending, where of equal norms the earlier
        token goes first; and norm(x) at these, packed (B * count, D).
    """
    streams, channels = x.shape[0], x.shape[-1]
    norms = x.new_empty(x.shape[:-1])
    index = torch.empty(streams * count, dtype=torch.int64)
    rows = x.new_empty(streams * count, channels)
    results = (norms.data_ptr(), index.data_ptr(), rows.data_ptr())
    _function("gate", reference.dtype)(*_tokens(x, reference, norm), count, *results)
    return norms, index, rows


def store_and_add(x: Tensor, buffer: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """x + buffer, (B, N, D), after the rows (R, D) took their places in the buffer."""
    out = torch.empty_like(x)
    channels = x.shape[-1]
    _function("store_and_add", buffer.dtype)(
        x.data_ptr(), buffer.data_ptr(), x.numel() // channels, channels, index.data_ptr(), len(index),
        rows.data_ptr(), out.data_ptr(), _threads(x.numel(), GATE_GRAIN),
    )  # fmt: skip
    return out


def divide_sums(sums: Tensor, normalisers: Tensor, out: Tensor) -> None:
    """U (H, N, d) / Z (H, N) -> out (N, D)."""
    heads, tokens, channels = sums.shape
    run = _function("divide_sums")
    run(sums.data_ptr(), normalisers.data_ptr(), tokens, heads, channels, out.data_ptr(),
        _threads(sums.numel(), GATE_GRAIN))  # fmt: skip


def _threads(work: int, grain: int) -> int:
    """As many threads as PyTorch has, where there is enough work for them."""
    return max(1, min(torch.get_num_threads(), work // grain))


def _tokens(x: Tensor, reference: Tensor, norm: nn.LayerNorm | None) -> tuple:
    """The first arguments of the functions for gates."""
    streams, tokens, channels = x.shape
    if norm is None:
        native = _NO_NORM
    else:
        native = _Norm(norm.weight.data_ptr(), norm.bias.data_ptr(), norm.eps)
    threads = _threads(streams * tokens * channels, GATE_GRAIN)
    return x.data_ptr(), reference.data_ptr(), streams, tokens, channels, ctypes.byref(native), threads


_TOKENS = [_void, _void, _long, _long, _int, _void, _int]
_SIGNATURES = {
    "vector_length": [],
    "packed_size": [_int, _int],
    "pack": [_void, _int, _int, _void, _int],
    "packed_agrees": [_void, _int, _int, _void],
    "linear": [_void],
    "attend_groups": [_void, _void, _long, _void, _long],
    "update": [_void] * 5,
    "attend_touched": [_void, _void, _void, _long, _long, _void, _long, _void],
    "errors": [*_TOKENS, _void],
    "take": [*_TOKENS, _void, _long, _void],
    "gate": [*_TOKENS, _long, _void, _void, _void],
    "store_and_add": [_void, _void, _long, _int, _void, _long, _void, _void, _int],
    "divide_sums": [_void, _void, _long, _int, _int, _void, _int],
}
_RESULTS = {"vector_length": _int, "packed_size": _long, "packed_agrees": _int}


@cache
def _function(name: str, dtype: torch.dtype | None = None) -> ctypes._CFuncPtr:
    library = load_library()
    assert library is not None
    function = getattr(library, name if dtype is None else f"{name}_{SUFFIXES[dtype]}")
    function.argtypes, function.restype = _SIGNATURES[name], _RESULTS.get(name)
    return function
