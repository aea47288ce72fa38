"""results.json, budgets.json and the tables that say the same."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence

import detectron2
import numpy as np
import torch

from ..costs import CostSums
from ..files import write_atomically, write_json
from ..markdown_table import format_number, format_table
from .machine_times import MachineTimes, comparable_times, describe_times
from .metrics import AGREEMENT, CHANGE, VID_AP50

RESULTS_FILE = "results.json"
RESULTS_TABLE = "results.md"
BUDGETS_FILE = "budgets.json"
BUDGETS_TABLE = "budgets.md"
GROUP_COLUMNS = {"segm": "mask AP", "tube_bbox": "tube AP", "tube_segm": "tube mask AP"}
"""Columns for the AP of groups that not all evaluations have."""
METRIC_GROUPS = ("bbox", "segm", "tube_bbox", "tube_segm", "motion", "size", "stability", "agreement", "intervals")
BUDGET_COLUMNS = (
    "budget",
    "AP",
    "AP25",
    "AP50",
    "AP75",
    "VID-AP50",
    "agreement",
    "backbone GFlops: flush",
    "later",
    "mean",
    "total GFlops: mean",
    "backbone s/frame",
    "total s/frame",
)
RANGES = (
    ("motion", "", "motion"),
    ("size", "", "size"),
    ("stability", "age-", "frames since flush"),
    ("agreement", "age-", "agreement, frames since flush"),
)
"""Group, how its ranges' names begin, and its title in tables."""
OBJECTS = "objects-"
INTERVALS = tuple(
    (f"{name}-low", f"{name}-high", title)
    for name, title in (
        (VID_AP50, VID_AP50),
        (CHANGE, f"{VID_AP50}, change from dense"),
        (AGREEMENT, AGREEMENT),
    )
)
"""Metrics of the group "intervals" in pairs, and their title in tables."""


def make_results(
    metrics: dict[str, dict],
    costs: CostSums,
    times: MachineTimes,
    *,
    policy: str,
    attention: str,
    device: torch.device,
    threads: int,
    streams: int,
    skipped: Sequence[dict],
) -> dict:
    """The content of results.json.

    Args:
        metrics: what `compute_metrics` returned, by group.
        policy: for example "top-r 256", or "dense".
        attention: mode of the global blocks, or "dense".
        threads: CPU threads of every process.
        streams: videos that ran side by side as one batch.
        skipped: [{"video", "reason"}] of the videos that could not be evaluated.
    """
    return to_strict(
        {
            **metrics,
            "gflops_per_frame": costs.gflops_per_frame(),
            "seconds_per_frame": times.per_frame(),
            "seconds_by_machine": times.by_machine(),
            "videos": costs.videos,
            "frames": costs.num_frames,
            "skipped": list(skipped),
            "policy": policy,
            "attention": attention,
            "threads_per_process": threads,
            "streams_per_batch": streams,
            "detectron2": detectron2.__version__,
            "torch": torch.__version__,
            "device": describe_device(device),
        }
    )


def describe_device(device: torch.device) -> str:
    """ "cpu", or the name of the GPU."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def to_strict(value: object) -> object:
    """Make a value fit for strict JSON: NaN and infinity become None, numpy scalars Python's own."""
    if isinstance(value, dict):
        return {str(key): to_strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_strict(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_progress(folder: str, results: Sequence[dict], form: Callable[[Sequence[dict]], str] | None = None) -> None:
    """Write the table of the budgets that are done so far, unless there is one of more: its results are still there.

    `form` is that of `write_budgets`.
    """
    try:
        with open(os.path.join(folder, BUDGETS_FILE), encoding="utf-8") as file:
            before = len(json.load(file))
    except (OSError, ValueError, TypeError):  # none, or one that is damaged
        before = 0
    if before <= len(results):
        write_budgets(folder, results, form)


def write_budgets(folder: str, results: Sequence[dict], form: Callable[[Sequence[dict]], str] | None = None) -> None:
    """Write the combined table of several budgets as budgets.json and budgets.md.

    `form` makes the text; None: `format_budgets`, for results of `make_results`.
    """
    write_json(os.path.join(folder, BUDGETS_FILE), list(results))
    write_atomically(os.path.join(folder, BUDGETS_TABLE), (form or format_budgets)(results) + "\n")


def write_table(folder: str, results: dict) -> None:
    """Write the tables of one evaluation as results.md."""
    write_atomically(os.path.join(folder, RESULTS_TABLE), format_results(results) + "\n")


def scalar_results(results: dict) -> dict[str, dict[str, float]]:
    """
    The numbers of results.json as {task: {metric: float}}, NaN for undefined: what Detectron2's hooks expect.
    """
    gflops = results["gflops_per_frame"]
    tasks = {
        **{group: results[group] for group in METRIC_GROUPS if group in results},
        "gflops_per_frame": {name: gflops[name]["mean"] for name in gflops},
        "seconds_per_frame": results["seconds_per_frame"],
    }
    return {
        task: {name: math.nan if value is None else float(value) for name, value in values.items()}
        for task, values in tasks.items()
    }


def format_screen(name: str, results: Sequence[dict]) -> str:
    """What is worth showing of the evaluations of a data set: a row for each, and the videos left out."""
    skipped = {entry["video"]: entry["reason"] for result in results for entry in result["skipped"]}
    lines = [f"skipped video {video}: {reason}" for video, reason in skipped.items()]
    parts = (name, format_summary(results), *describe_times(results), "\n".join(lines))
    return "\n" + "\n\n".join(part for part in parts if part) + "\n"


def format_results(results: dict) -> str:
    """One evaluation as markdown tables: accuracy by group, cost, cost by category, and the videos left out."""
    gflops, seconds = results["gflops_per_frame"], results["seconds_per_frame"]
    accuracy = [
        format_table((group, "percent"), [(name, format_number(value, 2)) for name, value in results[group].items()])
        for group in METRIC_GROUPS
        if group in results
    ]
    cost = format_table(
        ("per frame", "GFlops: flush", "later", "mean", "seconds"),
        [
            (
                name,
                *(format_number(gflops[name][kind], 3) for kind in ("flush", "later", "mean")),
                format_number(seconds[name], 4),
            )
            for name in ("backbone", "total")
        ],
    )
    categories = format_table(
        ("category", "GFlops per frame"),
        [(name, format_number(value, 4)) for name, value in gflops["total"]["by_category"].items()],
    )
    head = (
        f"{results['policy']}, attention {results['attention']}: {results['frames']} frames of "
        f"{results['videos']} videos on {results['device']} (detectron2 {results['detectron2']}, "
        f"torch {results['torch']})"
    )
    skipped = [f"skipped video {entry['video']}: {entry['reason']}" for entry in results["skipped"]]
    return "\n\n".join((head, *accuracy, cost, categories, *describe_times([results]), *skipped))


def format_budgets(results: Sequence[dict]) -> str:
    """Several evaluations as markdown tables: a row for each, and VID-AP50 by range with a column for each."""
    parts = (format_summary(results), format_intervals(results), format_ranges(results), *describe_times(results))
    return "\n\n".join(part for part in parts if part)


def format_summary(results: Sequence[dict]) -> str:
    """Accuracy and cost of several evaluations, a row for each; without seconds of different machines."""
    added = [group for group in GROUP_COLUMNS if any(group in result for result in results)]
    rows = []
    for result in comparable_times(results):
        gflops, seconds = result["gflops_per_frame"], result["seconds_per_frame"]
        rows.append(
            (
                result["policy"],
                *(format_number(result["bbox"][name], 2) for name in ("AP", "AP25", "AP50", "AP75", VID_AP50)),
                *(format_number(result.get(group, {}).get("AP"), 2) for group in added),
                format_number(result.get("agreement", {}).get(VID_AP50), 2),
                *(format_number(gflops["backbone"][kind], 3) for kind in ("flush", "later", "mean")),
                format_number(gflops["total"]["mean"], 3),
                *(format_number(seconds[name], 4) for name in ("backbone", "total")),
            )
        )
    before = BUDGET_COLUMNS.index("agreement")
    columns = (*BUDGET_COLUMNS[:before], *(GROUP_COLUMNS[group] for group in added), *BUDGET_COLUMNS[before:])
    return format_table(columns, rows)


def format_intervals(results: Sequence[dict]) -> str:
    """The 95 % intervals of several evaluations, a row for each; "" where there are none."""
    groups = [result.get("intervals", {}) for result in results]
    cells = [[format_interval(group.get(low), group.get(high)) for low, high, _ in INTERVALS] for group in groups]
    known = [i for i in range(len(INTERVALS)) if any(row[i] for row in cells)]
    rows = [(result["policy"], *(row[i] or "-" for i in known)) for result, row in zip(results, cells)]
    return format_table(("95 % interval over videos", *(INTERVALS[i][2] for i in known)), rows) if known else ""


def format_interval(low: float | None, high: float | None) -> str:
    """An interval as "12.30 to 45.60"; "" where there is none."""
    return "" if low is None or high is None else f"{low:.2f} to {high:.2f}"


def format_ranges(results: Sequence[dict]) -> str:
    """VID-AP50 of several evaluations by motion, size and frames since a flush; "" where no range has a value."""
    rows = []
    for group, prefix, title in RANGES:
        groups = [result.get(group, {}) for result in results]
        measured = next(filter(None, groups), {})
        for key, share in measured.items():
            if not key.startswith(OBJECTS + prefix):
                continue
            name = key.removeprefix(OBJECTS)
            values = [found.get(f"{VID_AP50}-{name}") for found in groups]
            if any(value is not None for value in values):
                cells = (format_number(share, 1), *(format_number(value, 2) for value in values))
                rows.append((f"{title}: {name.removeprefix(prefix)}", *cells))
    return format_table(("VID-AP50", "% of objects", *(result["policy"] for result in results)), rows) if rows else ""
