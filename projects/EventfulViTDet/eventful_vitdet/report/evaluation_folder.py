"""What an evaluation left in its folder: budgets.json, and a record of every video at every budget."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..budgets import DENSE, name_of_budget, short_label
from ..errors import ReportError
from ..evaluation.collect import VIDEOS_FILE
from ..evaluation.machine_times import comparable_times
from ..evaluation.results import BUDGETS_FILE, RESULTS_FILE
from ..evaluation.store import record_paths

# Paths of keys in results.json, for `Budget.number`.
AP50 = ("bbox", "AP50")
AGREEMENT = ("agreement", "VID-AP50")
"""With the dense model."""
TOTAL_GFLOPS = ("gflops_per_frame", "total", "mean")
BACKBONE_GFLOPS = ("gflops_per_frame", "backbone", "mean")
SECONDS = ("seconds_per_frame", "total")
BACKBONE_SECONDS = ("seconds_per_frame", "backbone")


@dataclass(frozen=True)
class Budget:
    """One evaluation of several on the same weights and videos."""

    policy: str
    """As in results.json: "dense", "top-r 64"."""
    results: dict
    records: dict[str, str]
    """Paths of the videos' records by file name; empty where there are none."""
    video_rows: dict[str, dict[str, str]] = field(default_factory=dict)
    """The rows of the evaluation's table of videos, by video_id as text."""

    @property
    def is_dense(self) -> bool:
        return self.policy == DENSE

    @property
    def label(self) -> str:
        """Short text for axes and legends."""
        return short_label(self.policy)

    def group(self, name: str) -> dict:
        """A group of metrics; empty where it was not measured."""
        group = self.results.get(name)
        return group if isinstance(group, dict) else {}

    def number(self, *keys: str) -> float | None:
        """A finite number at a path of keys; None where there is none."""
        value: object = self.results
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return as_number(value)


def as_number(value: object) -> float | None:
    """A finite number as float; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:  # an integer of any length, which JSON allows
        return None
    return number if math.isfinite(number) else None


def read_budgets(folder: str) -> list[Budget]:
    """The evaluations of an inference folder: those of budgets.json, or the only one, of results.json.

    Raises ReportError where the folder has neither, or they are damaged.
    """
    for name in (BUDGETS_FILE, RESULTS_FILE):
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            content = _read_json(path)
            entries = content if name == BUDGETS_FILE else [content]
            return list(_make_budgets(folder, path, entries, alone=name == RESULTS_FILE))
    raise ReportError(
        f"{folder}: has neither {BUDGETS_FILE} nor {RESULTS_FILE}; give the 'inference' folder that "
        "`train_net.py --eval-only --budgets dense 64 ...` wrote below OUTPUT_DIR"
    )


def _make_budgets(folder: str, path: str, entries: object, alone: bool) -> Iterator[Budget]:
    if not isinstance(entries, list) or not entries:
        raise ReportError(f"{path}: expected a list of results, one for each budget")
    if all(isinstance(entry, dict) for entry in entries):
        entries = comparable_times(entries)
    seen = set()
    for entry in entries:
        policy = entry.get("policy") if isinstance(entry, dict) else None
        if not isinstance(policy, str) or not policy:
            raise ReportError(f"{path}: an entry has no 'policy'; it is not what an evaluation writes")
        if "gflops_per_clip" in entry:
            raise ReportError(f"{path}: is of action recognition, which has no report; budgets.md has its table")
        if policy in seen:
            raise ReportError(f"{path}: policy {policy!r} occurs twice")
        seen.add(policy)
        name = name_of_budget(policy)
        own = folder if alone else os.path.join(folder, name) if name else None
        paths = record_paths(own) if own is not None and os.path.isdir(own) else []
        rows = _read_video_rows(os.path.join(own, VIDEOS_FILE)) if own is not None else {}
        yield Budget(policy, entry, {Path(record).name: record for record in paths}, rows)


def _read_video_rows(path: str) -> dict[str, dict[str, str]]:
    """The table of videos; empty if it is not there."""
    if not os.path.isfile(path):
        return {}
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return {row.get("video_id") or "": row for row in csv.DictReader(file)}
    except (OSError, ValueError, csv.Error) as error:
        raise ReportError(f"{path}: cannot be read as a table of videos ({error})") from error


def _read_json(path: str) -> object:
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except OSError as error:
        raise ReportError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{path}: is not valid JSON ({error})") from error
