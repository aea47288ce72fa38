"""Measures other sizes of the pieces of work, and writes the table of the fastest (ops/gpu/tuning.py)."""

from __future__ import annotations

import importlib
import os
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from multiprocessing import get_context

import torch
from eventful_vit.ops.gpu import tuning

from ..attribute_swap import swapped
from .frame_times import time_once
from .machine import device
from .operator_checks import MOST_PROCESSES
from .part_list import Note
from .tile_cases import BRANCHES, LAYERS, MODULES, Branch, Layer, Tile, Work, present_tile

REPEATS = 20
"""Calls in one graph, so that starting them costs nothing."""
ROUNDS = 5
WORTH_IT = 0.97
"""A tile replaces the present one if it takes at most this share of its time: less is within what repeats differ by."""
SIGNATURES = {
    "linear_tile": "rows: int, outputs: int",
    "attention_tile": "dtype: torch.dtype, channels: int, queries: int",
    "exchange_tile": "dtype: torch.dtype, channels: int",
}

Timer = Callable[[Callable[[], object]], float]


def sweep_tiles(note: Note) -> dict:
    """Measure all candidates of all branches, and the two ways to compute linear layers."""
    compile_in_parallel(BRANCHES)
    result = sweep(BRANCHES, graph_seconds, device(), note)
    result["products"] = compare_products(LAYERS, graph_seconds, device())
    return result


def sweep(branches: Sequence[Branch], timer: Timer, where: torch.device, note: Note) -> dict:
    """The same with a given clock.

    Returns:
        {"branches": what was measured, "table": the fastest tiles as Python text}.
    """
    done: list[dict] = []
    result: dict = {"branches": done, "table": None, "reason": None}
    with torch.no_grad():
        for branch in branches:
            done.append(_measure_branch(branch, timer, where))
            print(f"  tune: {branch.name}: {done[-1]['gain']:.2f} x", flush=True)
            note(result)
    result["table"] = table_text(done)
    return result


def compare_products(layers: Sequence[Layer], timer: Timer, where: torch.device) -> list[dict]:
    """What linear layers take in the library and in our kernel, and which of them the table chooses."""
    rows = []
    with torch.no_grad():
        for layer in layers:
            ms = {name: 1e3 * timer(run) for name, run in layer.prepare(where).items()}
            chosen = tuning.uses_library(layer.rows, layer.inputs, layer.outputs, layer.gelu or layer.plus)
            rows.append({"layer": layer.name, **ms, "chosen": "library" if chosen else "kernel"})
    return rows


def _measure_branch(branch: Branch, timer: Timer, where: torch.device) -> dict:
    works = [(work, work.prepare(where)) for work in branch.works]
    now = [present_tile(branch, work) for work, _ in works]
    before = [timer(run) for _, run in works]
    tried = []
    for tile in branch.tiles:
        entry: dict = {"tile": tile, "error": None, "ms": [], "share": None}
        try:
            with use_tile(branch.function, tile):
                seconds = [timer(run) for _, run in works]
        except Exception as error:  # it may need more memory than a processor has
            entry["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            entry["ms"] = [1e3 * second for second in seconds]
            entry["share"] = statistics.mean(after / first for after, first in zip(seconds, before))
        tried.append(entry)
    measured = [entry for entry in tried if entry["share"] is not None]
    best = min(measured, key=lambda entry: entry["share"], default=None)
    wins = best is not None and best["share"] <= WORTH_IT
    return {
        "function": branch.function,
        "condition": branch.condition,
        "works": [work.name for work, _ in works],
        "present": now[0],
        "present_ms": [1e3 * second for second in before],
        "tried": tried,
        "winner": best["tile"] if wins else now[0],
        "gain": 1 / best["share"] if wins else 1.0,
    }


def use_tile(function: str, tile: Tile) -> AbstractContextManager:
    """Inside, a function of the table gives this tile, whatever it is asked."""
    module = importlib.import_module(f"eventful_vit.ops.gpu.{MODULES[function]}")
    return swapped(module, function, lambda *_: dict(tile))


def graph_seconds(run: Callable[[], object]) -> float:
    """Seconds of a call on a GPU: the median of some replays of a graph of many."""
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(REPEATS):
            run()
    graph.replay()
    torch.cuda.synchronize()
    return statistics.median(time_once(graph.replay, torch.device("cuda"))[0] for _ in range(ROUNDS)) / REPEATS


def compile_in_parallel(branches: Sequence[Branch]) -> None:
    """Compile everything that will be measured, into Triton's cache, in several processes: a second for each kernel."""
    tasks = [(place, number) for place, branch in enumerate(branches) for number in range(-1, len(branch.tiles))]
    with ProcessPoolExecutor(min(MOST_PROCESSES, os.cpu_count() or 1), mp_context=get_context("spawn")) as pool:
        for _ in pool.map(_run_once, tasks, chunksize=2):
            pass


def _run_once(task: tuple[int, int]) -> None:
    place, number = task
    branch = BRANCHES[place]
    tile: Tile | None = branch.tiles[number] if number >= 0 else None
    try:
        with torch.no_grad():
            for work in branch.works:
                _run_work(branch, work, tile)
    except Exception as error:  # it is met, and noted, again when it is measured
        print(f"  tune: {branch.name}, {tile}: {str(error).splitlines()[0]}", flush=True)


def _run_work(branch: Branch, work: Work, tile: Tile | None) -> None:
    run = work.prepare(device())
    if tile is None:
        run()
        return
    with use_tile(branch.function, tile):
        run()


def table_text(branches: Sequence[dict]) -> str:
    """The fastest tiles as functions to paste into ops/gpu/tuning.py."""
    lines = []
    for function, signature in SIGNATURES.items():
        own = [branch for branch in branches if branch["function"] == function]
        if not own:
            continue
        lines += [f"def {function}({signature}) -> dict[str, int]:"]
        for branch in own:
            if branch["condition"] is not None:
                lines.append(f"    if {branch['condition']}:")
            indent = "    " if branch["condition"] is None else "        "
            tile = ", ".join(f'"{name}": {value}' for name, value in branch["winner"].items())
            lines.append(f"{indent}return {{{tile}}}")
        lines += ["", ""]
    return "\n".join(lines).rstrip() + "\n"
