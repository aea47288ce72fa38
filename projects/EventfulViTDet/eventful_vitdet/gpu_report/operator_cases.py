"""Arguments for every operator, in shapes that are hard for kernels, and the same work in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from eventful_vit import ops
from eventful_vit.ops.gating import largest_above
from torch import Tensor

from .random_arguments import Draw, Size

TYPES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
"""Rounding of numbers around 1 in each type, some times over: errors are measured relative to 1 + |value|."""
EVERYTHING = float("-inf")

Kernels = dict[ops.Operator, Callable]

SMALL_SIZES = (
    Size((1, 1)),
    Size((3, 5), streams=2, channels=5, window=4),
)
"""One token; no multiples of anything, and windows larger than the grid. The interpreter takes seconds for each."""
GPU_SIZES = (
    *SMALL_SIZES,
    Size((5, 7), streams=2, heads=3, channels=5),
    Size((4, 6), streams=3, channels=24, window=14),
    Size((9, 70), streams=2, channels=64, window=7),
    Size((14, 15), channels=80, heads=3, window=14),
    Size((33, 32), channels=128, window=14),
    Size((64, 64), heads=12, channels=64, window=14),
)


@dataclass(frozen=True)
class Case:
    """One call of an operator."""

    operator: str
    label: str
    factor: float
    """Of the type's rounding, for results that are sums of many terms or are computed in several steps."""
    error: Callable[[Kernels, torch.device], float]
    """Runs it; the largest error relative to 1 + |value|, infinite where whole numbers differ."""


def make_cases(dtype: torch.dtype, size: Size) -> Iterator[Case]:
    """Cases of all operators in one type and size. Each draws its own arguments, from a fixed seed."""
    # Sums that change are within 16 (16 + max |S|) 2^-24 in float32 (attention/exact.py): 6e-5 for scores of up to 46,
    # which these cases do not reach. In shorter types, queries and keys are rounded more than that.
    sums = 6 if dtype is torch.float32 else 4
    selections = {"none": 0, "one": 1, "a third": max(1, size.tokens // 3), "all": size.tokens}
    for what, count in selections.items():
        yield Case("gate", f"{what} selected, {size}", 4, _gate(dtype, size, count, 0.0, None))
        yield Case("store, replace, add", f"{what} selected, {size}", 1, _stores(dtype, size, count))
        yield Case("send", f"{what} selected, {size}", 1, _send(dtype, size, count))
        yield Case("attend_windows", f"{what} selected, {size}", 2, _attend_windows(dtype, size, count))
        yield Case("update_sums, divide", f"{what} changed, {size}", sums, _update_sums(dtype, size, count))
    yield Case("gate", f"by a threshold, a flush among the streams, {size}", 4, _gate(dtype, size, size.tokens, 1.0, 0))
    yield Case("normalise", str(size), 1, _norms(ops.normalise, dtype, size))
    yield Case("error_norms", str(size), 4, _norms(ops.error_norms, dtype, size))
    yield Case("finite", str(size), 0, _finite(dtype, size))
    for window in (0, size.window):
        for positions in (True, False):
            kind = f"{'windows' if window else 'whole grid'}{', positions' if positions else ''}"
            yield Case("attend", f"{kind}, {size}", 2, _attend(dtype, size, window, positions))
    for plus in (False, True):
        yield Case("embed", f"{'with positions' if plus else 'no positions'}, {size}", 2, _embed(dtype, size, plus))
    for rows in (1, size.tokens):
        for gelu, plus in ((False, False), (True, False), (False, True)):
            ending = "GELU" if gelu else "a sum" if plus else "bias"
            yield Case("linear", f"{rows} rows with {ending}, {size}", 2, _linear(dtype, size, rows, gelu, plus))


def distance(mine: Tensor, theirs: Tensor) -> float:
    """The largest error relative to 1 + |value|; infinite for NaN, and for whole numbers that differ."""
    mine = mine.to(theirs.device)
    if mine.shape != theirs.shape:
        return float("inf")
    if not theirs.is_floating_point():
        return 0.0 if torch.equal(mine.to(theirs.dtype), theirs) else float("inf")
    if not theirs.numel():
        return 0.0
    error = ((mine.double() - theirs).abs() / (1 + theirs.abs())).max().item()
    return error if error == error else float("inf")


def run_both(kernels: Kernels, operator: ops.Operator, arguments: tuple) -> tuple[Any, list, Any, list]:
    """The kernel's results and its copies of the arguments, and those of the reference in float64."""
    mine, theirs = _copied(list(arguments), False), _copied(list(arguments), True)
    result = kernels[operator](*mine)
    if result is NotImplemented:
        raise RuntimeError(f"the kernel of {operator.name} does not take these arguments")
    return result, mine, operator.reference(*theirs), theirs


def _copied(x: Any, wide: bool) -> Any:
    if isinstance(x, (list, tuple)):
        return [_copied(part, wide) for part in x]
    if isinstance(x, Tensor):
        return x.double() if wide and x.is_floating_point() and x.dtype is not torch.float64 else x.clone()
    return torch.float64 if wide and isinstance(x, torch.dtype) else x


def _gate(dtype: torch.dtype, size: Size, count: int, threshold: float, flushed: int | None) -> Callable:
    def error(kernels: Kernels, device: torch.device) -> float:
        draw = Draw(dtype, size, device)
        flush = torch.zeros(size.streams, dtype=torch.uint8, device=device)
        if flushed is not None:
            flush[flushed] = 1
        limit = torch.tensor(threshold if threshold else EVERYTHING, device=device)
        numbers = (torch.tensor(count, device=device), limit, flush, size.streams * size.tokens)
        arguments = (draw.tokens(), draw.tokens(), *numbers, *draw.norm())
        (norms, index, offsets, rows), ours, theirs, _ = run_both(kernels, ops.gate, arguments)
        # What is chosen is decided by the kernel's own norms: rounding may exchange neighbours.
        chosen = largest_above(norms, count, float(limit)) | flush.bool()[:, None]
        used = int(offsets[-1])
        begins = torch.cat([offsets.new_zeros(1), chosen.sum(dim=1).cumsum(dim=0)])
        if not torch.equal(offsets, begins) or not torch.equal(index[:used], chosen.flatten().nonzero().squeeze(1)):
            return float("inf")
        if not torch.equal(ours[1].flatten(0, 1)[index[:used]], rows[:used].to(ours[1].dtype)):
            return float("inf")
        finite = theirs[0].isfinite()
        expected = ops.send.reference(arguments[0].double(), arguments[1].double(), index[:used], *(
            x.double() if isinstance(x, Tensor) else x for x in arguments[-3:]
        ))  # fmt: skip
        flushes = distance(norms.isinf(), ~finite)
        return max(distance(rows[:used], expected), distance(norms[finite], theirs[0][finite].double()), flushes)

    return error


def _send(dtype: torch.dtype, size: Size, count: int) -> Callable:
    def error(kernels: Kernels, device: torch.device) -> float:
        draw = Draw(dtype, size, device)
        index = None if count == size.tokens else draw.places(count, size.tokens)[0]
        rows, ours, expected, theirs = run_both(kernels, ops.send, (draw.tokens(), draw.tokens(), index, *draw.norm()))
        return max(distance(rows, expected), distance(ours[1], theirs[1]))

    return error


def _norms(operator: ops.Operator, dtype: torch.dtype, size: Size) -> Callable:
    def error(kernels: Kernels, device: torch.device) -> float:
        draw = Draw(dtype, size, device)
        tokens = (draw.tokens(), draw.tokens()) if operator is ops.error_norms else (draw.tokens(),)
        result, _, expected, _ = run_both(kernels, operator, (*tokens, *draw.norm()))
        return distance(result, expected.double())

    return error


def _finite(dtype: torch.dtype, size: Size) -> Callable:
    def error(kernels: Kernels, device: torch.device) -> float:
        images = torch.full((3, 3, *size.grid), 6e4, dtype=dtype, device=device)
        images[0, -1, -1, -1], images[1, 0, 0, 0] = torch.inf, torch.nan
        expected = torch.tensor([False, False, True], device=device)
        return distance(kernels[ops.finite](images).to(device), expected)

    return error


def _stores(dtype: torch.dtype, size: Size, count: int) -> Callable:
    def error(kernels: Kernels, device: torch.device) -> float:
        draw, width = Draw(dtype, size, device), 3 * size.dim
        index, offsets = draw.places(count, size.tokens)
        used = offsets[-1]
        spare = torch.cat([index, index.new_zeros(3)])  # places that do not count
        rows = draw.floats(len(spare), width)
        buffer, x = draw.tokens(width), draw.tokens(width)
        errors = []
        for operator, arguments in (
            (ops.store, (buffer, spare, rows, used)),
            (ops.add, (x, buffer)),
            (ops.replace, (buffer, spare, rows, used, size.dim)),
        ):
            old, ours, expected, theirs = run_both(kernels, operator, arguments)
            errors += [distance(a, b) for a, b in zip(ours[:2], theirs[:2])]
            if operator is ops.replace:
                errors.append(distance(old[: len(index)], expected[: len(index)]))
        return max(errors)

    return error


def _linear(dtype: torch.dtype, size: Size, rows: int, gelu: bool, plus: bool) -> Callable:
    def error(kernels: Kernels, device: torch.device) -> float:
        draw, outputs = Draw(dtype, size, device), 3 * size.dim
        weight = draw.floats(outputs, size.dim) * size.dim**-0.5
        added = draw.floats(rows, outputs) if plus else None
        arguments = (draw.floats(rows, size.dim), weight, draw.floats(outputs), gelu, added, None, None)
        result, _, expected, _ = run_both(kernels, ops.linear, arguments)
        return distance(result, expected)

    return error


def _embed(dtype: torch.dtype, size: Size, plus: bool) -> Callable:
    def error(kernels: Kernels, device: torch.device) -> float:
        draw, patch = Draw(dtype, size, device), 16
        images = draw.floats(size.streams, 3, *(patch * side for side in size.grid))
        weight = draw.floats(size.dim, 3, patch, patch) * (3 * patch**2) ** -0.5
        positions = draw.floats(1, size.tokens, size.dim) if plus else None
        arguments = (images, weight, draw.floats(size.dim), positions, None)
        result, _, expected, _ = run_both(kernels, ops.embed, arguments)
        return distance(result, expected)

    return error


def _attend(dtype: torch.dtype, size: Size, window: int, positions: bool) -> Callable:
    def error(kernels: Kernels, device: torch.device) -> float:
        draw = Draw(dtype, size, device)
        padding = draw.floats(3 * size.dim) if window else None
        arguments = (draw.tokens(3 * size.dim), padding, *draw.attention(window, positions), dtype)
        result, _, expected, _ = run_both(kernels, ops.attend, arguments)
        return distance(result, expected)

    return error


def _attend_windows(dtype: torch.dtype, size: Size, count: int) -> Callable:
    def error(kernels: Kernels, device: torch.device) -> float:
        draw = Draw(dtype, size, device)
        index, offsets = draw.places(count, size.tokens)
        sizes = draw.attention(size.window, True)
        arguments = (
            draw.tokens(3 * size.dim), index, offsets[-1], draw.tokens(), draw.floats(3 * size.dim), *sizes
        )  # fmt: skip
        touched, ours, expected, theirs = run_both(kernels, ops.attend_windows, arguments)
        return max(distance(touched, expected), distance(ours[3], theirs[3]))

    return error


def _update_sums(dtype: torch.dtype, size: Size, count: int) -> Callable:
    """A frame in full, then one in which some tokens changed: attention is that of the new frame."""

    def error(kernels: Kernels, device: torch.device) -> float:
        draw, dim = Draw(dtype, size, device), size.dim
        sizes = draw.attention(0, True)
        q, kv = draw.tokens(), draw.tokens(2 * dim)
        shape = (size.streams, size.heads, size.tokens)
        state = [torch.full((*shape, size.channels), torch.nan, device=device)]
        state += [torch.full(shape, torch.nan, device=device) for _ in range(3)]
        update, divide = kernels[ops.update_sums], kernels[ops.divide]
        update(q, kv, [], state, *sizes)
        index, offsets = draw.places(count, size.tokens)
        old = kv.flatten(0, 1)[index]
        q.view(-1, dim)[index], kv.view(-1, 2 * dim)[index] = (
            draw.floats(len(index), dim),
            draw.floats(len(index), 2 * dim),
        )
        update(q, kv, [index, offsets, index, offsets, old], state, *sizes)
        result = divide(*state[:2], torch.float32)
        wide = [part.double() for part in state]
        tables = [table.double() for table in sizes[0]]
        ops.update_sums.reference(q.double(), kv.double(), [], wide, tables, *sizes[1:])
        expected = ops.divide.reference(*wide[:2], torch.float64)
        return distance(result, expected)

    return error
