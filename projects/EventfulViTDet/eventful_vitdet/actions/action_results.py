"""results.json of an evaluation of clips, and tables of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import detectron2
import torch

from ..markdown_table import format_number, format_table
from ..structures import MACS_PER_GFLOP
from .action_metrics import accuracies
from .clip import BadClip
from .step_counts import NOT_IN_PAPER, STEP_KINDS, sum_categories


def make_results(
    records: Sequence[Mapping], bad: Iterable[BadClip], *, policy: str, attention: str, device: str
) -> dict:
    """The content of results.json. "paper" is the paper's figure: all but the tubelet embedding.

    Args:
        records: of all clips that were evaluated.
        bad: clips that were left out.
    """
    clips = len(records)
    by_category: Counter[str] = Counter()
    by_kind: Counter[str] = Counter()
    steps: Counter[str] = Counter()
    for record in records:
        by_category.update(sum_categories(record["macs"]))
        by_kind.update({kind: sum(record["macs"][kind].values()) for kind in STEP_KINDS})
        steps.update(record["steps"])
    gflops = {name: number / clips / MACS_PER_GFLOP for name, number in by_category.items()}
    total = sum(gflops.values())
    return {
        "accuracy": accuracies(record["ranks"] for record in records),
        "gflops_per_clip": {"paper": total - gflops.get(NOT_IN_PAPER, 0.0), "total": total, "by_category": gflops},
        "gflops_per_step": {
            kind: by_kind[kind] / steps[kind] / MACS_PER_GFLOP if steps[kind] else None for kind in STEP_KINDS
        },
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
        *(
            f"{format_number(accuracy.get(f'{head}_top1'), 2)} / {format_number(accuracy.get(f'{head}_top5'), 2)}"
            for head in heads
        ),
        *(format_number(gflops[kind], 3) for kind in ("paper", "total")),
        *(format_number(steps[kind], 4) for kind in ("flush", "later")),
        *(format_number(result["seconds_per_clip"][part], 3) for part in ("spatial", "total")),
    )
