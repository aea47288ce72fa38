"""Times of ViTDet-B's backbone beside their goals: dense and eventful, in turn, with yardsticks of the dense model."""

from __future__ import annotations

import copy
import math
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from eventful_vit import EventfulViT, Streams, TopR, count_operations, encoder
from eventful_vit.ops import tf32
from torch import Tensor

from ..attribute_swap import swapped
from .dense_yardsticks import YARDSTICKS
from .detector_times import measure_detector
from .frame_times import (
    Timing,
    drifting_frames,
    milliseconds_in_a_row,
    nth,
    product_rate,
    time_in_turn,
    timing_row,
)
from .goals import goal_rows
from .kernel_launches import profile_frame_launches
from .machine import device
from .part_list import Note
from .report_models import ALL_BFLOAT16, BFLOAT16, FLOAT32, VITDET_B, Form, build_vit

FRAMES = 8
IN_FULL = "in full"
"""An eventful frame of all tokens, as for large budgets. It writes all state, so it takes longer than a dense one."""
NEVER = 2.0
"""A share of all tokens that no budget reaches."""
WARM_UP = 4
"""A frame's first call compiles, its second one is recorded."""


@dataclass(frozen=True)
class Setting:
    """What is timed in turn, on one model."""

    name: str
    """Begins the names of its measured quantities."""
    size: int
    form: Form
    budgets: tuple[int, ...]
    streams: int = 1
    yardsticks: bool = False
    crossover: tuple[int, ...] = ()
    """Further budgets, to find the smallest from which on it is faster to compute frames in full."""
    rounds: int = 25
    seconds: float = 15.0
    """No further round begins after so many."""


SETTINGS = (
    Setting(
        "1024", 1024, BFLOAT16, (512, 256), yardsticks=True, crossover=(768, 1024, 1536, 2048, 3072, 4096), seconds=30.0
    ),
    Setting("672", 672, BFLOAT16, (256,), crossover=(512, 768, 1024, 1280, 1764)),
    Setting("16 streams", 1024, BFLOAT16, (512,), streams=16, rounds=10),
    Setting("float32", 1024, FLOAT32, (512,), rounds=10),
    Setting("bfloat16 throughout", 1024, ALL_BFLOAT16, (512, 256), rounds=15),
)


def measure_tables(note: Note) -> dict:
    """All settings, then the whole detector."""
    return measure_settings(SETTINGS, VITDET_B, device(), note)


def measure_settings(settings: tuple[Setting, ...], architecture: dict, where: torch.device, note: Note) -> dict:
    """Measure the settings one after the other; one that fails is noted, and the others are measured."""
    result: dict = {"rows": [], "measured": {}, "crossover": {}, "launches": [], "errors": []}
    attempt(result, "products", lambda: result.update(products=product_rates(where)))
    for setting in settings:
        print(f"  tables: {setting.name}, {setting.form.name}", flush=True)
        attempt(result, setting.name, lambda s=setting: _measure(s, architecture, where, result))
        result["goals"] = goal_rows(result["measured"], "not reached yet, or it failed")
        note(result)
    print("  tables: whole detector", flush=True)
    attempt(result, "whole detector", lambda: measure_detector(result, where))
    failed = "it failed; see the errors"
    result["goals"] = goal_rows(result["measured"], failed, result.get("detector_reason") or failed)
    return result


def attempt(result: dict, name: str, run: Callable[[], object]) -> None:
    """Run a step; what it raises goes into the result's errors."""
    try:
        run()
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        result["errors"].append({"name": name, "error": text, "trace": traceback.format_exc()})


def product_rates(where: torch.device) -> list[dict]:
    """What products reach here: the shape of an MLP's first layer, and a large one."""
    shapes = ((4096, 768, 3072), (512, 768, 3072), (8192, 8192, 8192)) if where.type == "cuda" else ((64, 64, 64),)
    rows = []
    for shape in shapes:
        for dtype in (torch.bfloat16, torch.float32):
            rate = product_rate(*shape, dtype, where)
            rows.append({"shape": list(shape), "type": str(dtype).removeprefix("torch."), "tflops": rate})
    return rows


def _measure(setting: Setting, architecture: dict, where: torch.device, result: dict) -> None:
    started = time.monotonic()
    model = build_vit(architecture, setting.size, setting.form, where, setting.budgets[0])
    frames = drifting_frames(FRAMES, setting.streams, setting.size, setting.form.tokens, where)
    calls, states = make_calls(model, frames, setting)
    with torch.no_grad(), tf32.switched_off() if setting.form is FLOAT32 else nullcontext():
        timings = time_in_turn(calls, where, setting.rounds, WARM_UP, started + setting.seconds)
        own = {name: call for name, call in calls.items() if name in ("dense", *states) and not timings[name].error}
        in_a_row = {name: milliseconds_in_a_row(call, where) for name, call in own.items()}
        macs = {name: count_macs(model, call) for name, call in own.items()}
        if setting.crossover:
            extra = crossover_calls(model, frames, setting)
            more = time_in_turn(extra, where, 8, WARM_UP, started + 2 * setting.seconds)
            result["crossover"][setting.name] = crossover(more, (setting.size // model.patch_size) ** 2)
        if where.type == "cuda" and setting.yardsticks:
            for name in ("dense", *states):
                call = partial(calls[name], WARM_UP)
                launches = profile_frame_launches(call)
                result["launches"].append({"setting": setting.name, "variant": name, **launches})
    dense = timings["dense"].milliseconds()
    for name, timing in timings.items():
        state_gb = states[name].nbytes / setting.streams / 1e9 if name in states else None
        figures = macs.get(name), state_gb, in_a_row.get(name)
        row = timing_row(setting.name, setting.size, setting.form.name, name, timing, dense, *figures)
        result["rows"].append(row)
        _remember(row, result["measured"])


def make_calls(
    model: EventfulViT, frames: list[Tensor], setting: Setting, budgets: tuple[int, ...] | None = None
) -> tuple[dict[str, Callable[[int], object]], dict[str, Streams]]:
    """Calls that compute the n-th frame, by name: dense, every budget with a state of its own, yardsticks."""

    def dense(number: int, model: EventfulViT = model, how: Callable = nullcontext) -> None:
        model.enabled = False
        with how():
            model(nth(frames, number))

    def eventful(number: int, r: int, state: Streams) -> None:
        model.enabled = True
        model.set_policy(TopR(r))
        model(nth(frames, number), state)

    states = {f"r={r}": Streams() for r in budgets or setting.budgets}
    calls: dict[str, Callable[[int], object]] = {"dense": dense}
    if setting.yardsticks and budgets is None:
        calls.update({name: partial(dense, model=copy.deepcopy(model), how=how) for name, how in YARDSTICKS.items()})
    calls.update({name: partial(eventful, r=int(name[2:]), state=state) for name, state in states.items()})
    return calls, states


def crossover_calls(model: EventfulViT, frames: list[Tensor], setting: Setting) -> dict[str, Callable[[int], object]]:
    """The dense frame, every budget, and a frame in full. All budgets choose tokens here, however large."""
    budgets = (*setting.budgets, *setting.crossover)
    calls, _ = make_calls(model, frames, setting, budgets)

    def with_crossover(number: int, share: float, call: Callable[[int], object]) -> None:
        with swapped(encoder, "CROSSOVER", share):
            call(number)

    in_full, _ = make_calls(model, frames, setting, budgets[:1])
    calls[IN_FULL] = partial(with_crossover, share=0.0, call=in_full[f"r={budgets[0]}"])
    return {
        name: partial(with_crossover, share=math.inf, call=call) if name.startswith("r=") else call
        for name, call in calls.items()
    }


def count_macs(model: EventfulViT, call: Callable[[int], object]) -> float:
    """GMACs of one more frame, all streams."""
    with count_operations(model) as counts:
        call(WARM_UP)
    return counts.backbone() / 1e9


def crossover(timings: dict[str, Timing], tokens: int) -> dict:
    """All times, the smallest budget `r` with which an eventful frame is no faster than a frame in full, the `share` of
    the tokens at which both take the same time, if times between two budgets lie on a line, and the share set `now`."""
    full = timings[IN_FULL].milliseconds()
    times = sorted((int(n[2:]), t.milliseconds()) for n, t in timings.items() if n.startswith("r=") and t.seconds)
    ms = {"dense_ms": timings["dense"].milliseconds(), "full_ms": full, "ms": dict(times)}
    found = {**ms, "r": None, "share": None, "now": encoder.CROSSOVER}
    if full is None or not times:
        return found
    before = None
    for r, milliseconds in times:
        if milliseconds >= full:
            return {**found, "r": r, "share": _crossing(before, (r, milliseconds), full) / tokens}
        before = (r, milliseconds)
    return {**found, "share": NEVER}


def _crossing(before: tuple[int, float] | None, after: tuple[int, float], level: float) -> float:
    """Where the line through two points (r, milliseconds) reaches a level; without a first one, the second."""
    if before is None:
        return after[0]
    (r, low), (next_r, high) = before, after
    return r + (next_r - r) * (level - low) / (high - low)


def _remember(row: dict, measured: dict) -> None:
    """Quantities that goals name."""
    setting = row["setting"]
    if row["ms"] is None:
        return
    measured[f"{setting} {row['variant']} ms"] = row["ms"]
    if row["dense_over_this"] is not None:
        measured[f"{setting} {row['variant']} ratio"] = row["dense_over_this"]
    if row["state_gb"] is not None:
        measured[f"{setting} state GB"] = row["state_gb"]
