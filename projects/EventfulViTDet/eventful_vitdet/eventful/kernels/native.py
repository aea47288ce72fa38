"""The compiled kernels as functions of tensors, with the shapes and results of the PyTorch operations they replace."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

from . import structures
from .build import load_library
from .structures import INT, LONG, VOID

SUFFIXES = {torch.float32: "f32", torch.bfloat16: "bf16"}
"""Types of state that the kernels read and write. Inside they compute in float32."""


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


def readable(*parameters: Tensor | None) -> bool:
    """Whether parameters lie as the kernels read them: in float32, their values in order and without gaps."""
    return all(p is None or (p.dtype == torch.float32 and p.is_contiguous()) for p in parameters)


def knows_norm(norm: nn.Module | None) -> bool:
    """Whether the kernels can do what a layer norm, or none, does; not if somebody hooked into it."""
    return norm is None or (
        type(norm) is nn.LayerNorm
        and norm.weight is not None
        and norm.bias is not None
        and readable(norm.weight, norm.bias)
        and not norm._forward_hooks
        and not norm._forward_pre_hooks
    )


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

    def build(self) -> structures.Problem:
        """The C structure, which must not outlive this object."""
        assert self.k.stride() == self.v.stride() and self.q.stride(-1) == self.k.stride(-1) == 1
        return structures.Problem(
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
            torch.get_num_threads(),
        )


def pack_positions(table: Tensor) -> Tensor:
    """Relative positions (a, a', d) as the kernels read them: (a, d, a'), a' filled up to whole vectors, in float32."""
    filling = -table.shape[1] % function("vector_length")()
    return nn.functional.pad(table.float().transpose(1, 2), (0, filling)).contiguous()


def attend_groups(problem: AttentionProblem, members: Tensor | None, out: Tensor) -> None:
    """Dense attention inside groups of tokens.

    Args:
        members: tokens of each group, (G, a * b), -1 for padding; None: one group, all tokens in order.
        out: (N, D), written at the groups' tokens; type of the queries.
    """
    native = problem.build()
    groups = 1 if members is None else len(members)
    pointer = None if members is None else members.data_ptr()
    run = function("attend_groups", problem.q.dtype)
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
    streams = len(out) // len(of_token)
    native = problem.build()
    windows = structures.Windows(of_token.data_ptr(), members.data_ptr(), len(members), len(of_token))
    touched = (LONG * streams)()
    run = function("attend_touched", problem.q.dtype)
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
    native = problem.build()
    executed = (LONG * 2)()
    change = structures.Change(None if renew is None else renew.data_ptr(), keys.data_ptr(), old.data_ptr(), len(keys))
    function("update", problem.q.dtype)(
        *map(
            ctypes.byref, (native, structures.Sums(*(x.data_ptr() for x in sums)), change, structures.Limits(*limits))
        ),
        executed,
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

    def __deepcopy__(self, memo: dict) -> PackedWeights:
        other = PackedWeights()  # of the same parameter, perhaps: models may share their weights
        other._source, other._packed = self._source, self._packed
        return other

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
        return function("packed_agrees")(parameter.data_ptr(), outputs, inputs, self._packed.data_ptr())

    def clear(self) -> None:
        """Free the copy."""
        self._packed = None


def _pack(weight: Tensor) -> Tensor:
    packed = weight.new_empty(function("packed_size")(*weight.shape))
    function("pack")(weight.data_ptr(), *weight.shape, packed.data_ptr(), torch.get_num_threads())
    return packed


def linear(rows: Tensor, packed: Tensor, outputs: int, bias: Tensor | None, gelu: bool = False) -> Tensor:
    """rows (..., inputs) times packed weights, plus bias -> (..., outputs), and their GELU where asked for."""
    rows = rows.contiguous()
    inputs = rows.shape[-1]
    out = rows.new_empty(*rows.shape[:-1], outputs)
    count = rows.numel() // inputs
    pointers = (packed.data_ptr(), None if bias is None else bias.data_ptr(), gelu, out.data_ptr())
    product = structures.Product(rows.data_ptr(), count, inputs, outputs, *pointers, torch.get_num_threads())
    function("linear")(ctypes.byref(product))
    return out


def error_norms(x: Tensor, reference: Tensor, norm: nn.LayerNorm | None) -> Tensor:
    """|norm(x) - reference| of every token: x (B, N, D) in float32, reference (B, N, D) -> (B, N)."""
    result = x.new_empty(x.shape[:-1])
    function("errors", reference.dtype)(ctypes.byref(_tokens(x, reference, norm)), result.data_ptr())
    return result


def take_rows(x: Tensor, reference: Tensor, index: Tensor, norm: nn.LayerNorm | None) -> Tensor:
    """norm(x) at some tokens (R,) of all B * N, packed (R, D); it is stored in the reference too."""
    rows = x.new_empty(len(index), x.shape[-1])
    function("take", reference.dtype)(
        ctypes.byref(_tokens(x, reference, norm)), index.data_ptr(), len(index), rows.data_ptr()
    )
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
    function("gate", reference.dtype)(ctypes.byref(_tokens(x, reference, norm)), count, *results)
    return norms, index, rows


def store_and_add(x: Tensor, buffer: Tensor, index: Tensor, rows: Tensor) -> Tensor:
    """x + buffer, (B, N, D), after the rows (R, D) took their places in the buffer."""
    out = torch.empty_like(x)
    channels = x.shape[-1]
    function("store_and_add", buffer.dtype)(
        x.data_ptr(), buffer.data_ptr(), x.numel() // channels, channels, index.data_ptr(), len(index),
        rows.data_ptr(), out.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return out


def divide_sums(sums: Tensor, normalisers: Tensor, out: Tensor) -> None:
    """U (H, N, d) / Z (H, N) -> out (N, D)."""
    heads, tokens, channels = sums.shape
    run = function("divide_sums")
    run(sums.data_ptr(), normalisers.data_ptr(), tokens, heads, channels, out.data_ptr(),
        torch.get_num_threads())  # fmt: skip


def norm_structure(norm: nn.LayerNorm | None) -> structures.Norm:
    """A layer norm, or none, for the kernels."""
    if norm is None:
        return structures.Norm()
    return structures.Norm(norm.weight.data_ptr(), norm.bias.data_ptr(), norm.eps)


def _tokens(x: Tensor, reference: Tensor, norm: nn.LayerNorm | None) -> structures.Tokens:
    return structures.Tokens(
        x.data_ptr(), reference.data_ptr(), *x.shape, norm_structure(norm), torch.get_num_threads()
    )


_SIGNATURES = {
    "vector_length": [],
    "packed_size": [INT, INT],
    "pack": [VOID, INT, INT, VOID, INT],
    "packed_agrees": [VOID, INT, INT, VOID],
    "linear": [VOID],
    "run_frame": [VOID],
    "attend_groups": [VOID, VOID, LONG, VOID, LONG],
    "update": [VOID] * 5,
    "attend_touched": [VOID, VOID, VOID, LONG, LONG, VOID, LONG, VOID],
    "errors": [VOID, VOID],
    "take": [VOID, VOID, LONG, VOID],
    "gate": [VOID, LONG, VOID, VOID, VOID],
    "store_and_add": [VOID, VOID, LONG, INT, VOID, LONG, VOID, VOID, INT],
    "divide_sums": [VOID, VOID, LONG, INT, INT, VOID, INT],
}
_RESULTS = {"vector_length": INT, "packed_size": LONG, "packed_agrees": INT, "run_frame": INT}


@cache
def function(name: str, dtype: torch.dtype | None = None) -> ctypes._CFuncPtr:
    library = load_library()
    assert library is not None
    function = getattr(library, name if dtype is None else f"{name}_{SUFFIXES[dtype]}")
    function.argtypes, function.restype = _SIGNATURES[name], _RESULTS.get(name)
    return function
