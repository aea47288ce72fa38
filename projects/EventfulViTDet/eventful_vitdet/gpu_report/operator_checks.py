"""Every operator against float64, in all types: the largest error beside its bound."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import torch

from .machine import device, gpu_kernels, has_gpu, use_interpreter_without_gpu
from .operator_cases import GPU_SIZES, SMALL_SIZES, TYPES, Size, make_cases
from .part_list import Note

MOST_PROCESSES = 8
"""Compiling a kernel takes about a second of one processor."""


def check_operators(note: Note) -> dict:
    """Run all cases, and tell `note` of each group that is done.

    Returns:
        {"rows": one for each operator and type, "errors": tracebacks of cases that did not run}.
    """
    groups = [
        (str(dtype).removeprefix("torch."), number) for dtype in TYPES for number in reversed(range(len(sizes())))
    ]
    outcomes: list[dict] = []
    for done, found in enumerate(_run_groups(groups), start=1):
        outcomes += found
        print(f"  operators: {done} of {len(groups)} groups, {sum(not o['ok'] for o in outcomes)} failures", flush=True)
        note(summarise(outcomes))
    return summarise(outcomes)


def sizes() -> tuple[Size, ...]:
    """Sizes that this machine checks in reasonable time."""
    return GPU_SIZES if has_gpu() else SMALL_SIZES


def _run_groups(groups: list[tuple[str, int]]) -> Iterator[list[dict]]:
    processes = min(MOST_PROCESSES, (os.cpu_count() or 2) // 2) if has_gpu() else 1
    if processes <= 1:
        yield from (check_group(*group) for group in groups)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for future in as_completed([pool.submit(check_group, *group) for group in groups]):
            yield future.result()


def check_group(dtype_name: str, size_number: int) -> list[dict]:
    """All operators in one type and size: an outcome for each case."""
    use_interpreter_without_gpu()
    kernels = gpu_kernels()
    dtype = getattr(torch, dtype_name)
    outcomes = []
    with torch.no_grad():
        for case in make_cases(dtype, sizes()[size_number]):
            bound = case.factor * TYPES[dtype]
            outcome = {"operator": case.operator, "type": dtype_name, "case": case.label, "bound": bound, "trace": None}
            try:
                outcome["error"] = case.error(kernels, device())
            except Exception:  # the other cases are checked all the same
                outcome["error"], outcome["trace"] = float("inf"), traceback.format_exc()
            outcomes.append({**outcome, "ok": outcome["error"] <= bound})
    return outcomes


def summarise(outcomes: list[dict]) -> dict:
    """A row for each operator and type with its worst case, and all failures."""
    rows: dict[tuple, dict] = {}
    for outcome in outcomes:
        key = (outcome["operator"], outcome["type"])
        row = rows.setdefault(key, {"operator": key[0], "type": key[1], "cases": 0, "failures": 0, "error": -1.0})
        row["cases"] += 1
        row["failures"] += not outcome["ok"]
        if outcome["error"] > row["error"]:
            row.update(error=outcome["error"], bound=outcome["bound"], worst=outcome["case"])
    failures = [outcome for outcome in outcomes if not outcome["ok"]]
    ordered = sorted(rows.values(), key=lambda row: (row["operator"], row["type"]))
    return {"rows": ordered, "failures": failures, "ok": not failures}
