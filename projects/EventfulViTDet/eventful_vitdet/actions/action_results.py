"""results.json of an evaluation of clips, and tables of it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

import detectron2
import torch

from ..files import write_atomically, write_json
from ..markdown_table import format_table
from ..structures import MACS_PER_GFLOP
from .action_metrics import accuracies
from .clip import BadClip
from .step_counts import NOT_IN_PAPER, sum_categories

RESULTS_FILE = "results.json"


def make_results(
    records: Sequence[Mapping], bad: Iterable[BadClip], *, policy: str, attention: str, device: str
) -> dict:
    """The content of results.json. "paper" is the paper's figure: all but the tubelet embedding.

    Args:
        records: of all clips that were evaluated.
        bad: clips that were left out.
    """
    clips = len(records)
    by_category: dict[str, int] = {}
    sums = {"flush": 0, "later": 0}
    steps = {"flush": 0, "later": 0}
    for record in records:
        for name, number in sum_categories(record["macs"]).items():
            by_category[name] = by_category.get(name, 0) + number
        for kind in steps:
            steps[kind] += record["steps"][kind]
            sums[kind] += sum(record["macs"][kind].values())
    gflops = {name: number / clips / MACS_PER_GFLOP for name, number in by_category.items()}
    total = sum(gflops.values())
    return {
        "accuracy": accuracies(record["ranks"] for record in records),
        "gflops_per_clip": {"paper": total - gflops.get(NOT_IN_PAPER, 0.0), "total": total, "by_category": gflops},
        "gflops_per_step": {kind: sums[kind] / steps[kind] / MACS_PER_GFLOP if steps[kind] else None for kind in steps},
        "seconds_per_clip": {
            part: sum(record["seconds"][part] for record in records) / clips for part in ("spatial", "total")
        },
        "clips": clips,
        "skipped": [{"clip": clip.clip_id, "reason": clip.reason} for clip in bad],
        "policy": policy,
        "attention": attention,
        "detectron2": detectron2.__version__,
        "torch": torch.__version__,
        "device": device,
    }


def format_results(results: Mapping) -> str:
    """One evaluation as tables."""
    head = f"{results['policy']}, attention {results['attention']}: {results['clips']} clips on {results['device']}"
    skipped = [f"skipped clip {entry['clip']}: {entry['reason']}" for entry in results["skipped"]]
    return "\n\n".join((head, format_budgets([results]), *skipped))


def format_budgets(results: Sequence[Mapping]) -> str:
    """Several evaluations as a table, a row for each."""
    metrics = list(dict.fromkeys(name for result in results for name in result["accuracy"]))
    heads = list(dict.fromkeys(name.rpartition("_")[0] for name in metrics))
    columns = (
        "budget",
        *(f"{head} top-1 / top-5" for head in heads),
        "GFlops/clip: paper",
        "total",
        "GFlops/step: flush",
        "later",
        "s/clip: spatial",
        "total",
    )
    return format_table(columns, [_row(result, heads) for result in results])


def _row(result: Mapping, heads: Sequence[str]) -> tuple[str, ...]:
    accuracy, gflops, steps = result["accuracy"], result["gflops_per_clip"], result["gflops_per_step"]
    return (
        result["policy"],
        *(f"{_number(accuracy.get(f'{head}_top1'), 2)} / {_number(accuracy.get(f'{head}_top5'), 2)}" for head in heads),
        *(_number(gflops[kind], 3) for kind in ("paper", "total")),
        *(_number(steps[kind], 4) for kind in ("flush", "later")),
        *(_number(result["seconds_per_clip"][part], 3) for part in ("spatial", "total")),
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def write_budgets(folder: str, results: Sequence[Mapping]) -> None:
    """Write the combined table of several budgets as budgets.json and budgets.md."""
    write_json(os.path.join(folder, "budgets.json"), list(results))
    write_atomically(os.path.join(folder, "budgets.md"), format_budgets(results) + "\n")
