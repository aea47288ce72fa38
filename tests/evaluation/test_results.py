from __future__ import annotations

import numpy as np
import pytest
from eventful_vitdet.evaluation.results import format_budgets, format_ranges, to_strict
from eventful_vitdet.files import write_json
from eventful_vitdet.markdown_table import format_table


def test_strict_json(tmp_path):
    value = {"a": float("nan"), "b": [np.float32(1.5), (float("inf"), 2)], 3: np.int64(4), "c": None}
    assert to_strict(value) == {"a": None, "b": [1.5, [None, 2]], "3": 4, "c": None}
    with pytest.raises(ValueError):
        write_json(str(tmp_path / "a.json"), float("nan"))
    assert not list(tmp_path.iterdir())


def test_table():
    assert format_table(("a", "bb"), [("x", "1")]) == "| a | bb |\n| - | -: |\n| x |  1 |"


def test_bar_in_a_name_does_not_end_its_cell():
    assert format_table(("a|b", "c"), [("x|y", "1")]).splitlines()[-1] == r"| x\|y | 1 |"


def test_undefined_values_are_dashes():
    gflops = {"flush": 1.0, "later": None, "mean": 1.0}
    result = {
        "policy": "dense",
        "bbox": {"AP": 1.0, "AP25": 4.0, "AP50": None, "AP75": 2.0, "VID-AP50": 3.0},
        "gflops_per_frame": {"backbone": gflops, "total": gflops},
        "seconds_per_frame": {"backbone": 0.1, "total": 0.2},
    }
    cells = [cell.strip() for cell in format_budgets([result]).splitlines()[2].split("|")[1:-1]]
    accuracy, cost = ["1.00", "4.00", "-", "2.00", "3.00", "-"], ["1.000", "-", "1.000", "1.000", "0.1000", "0.2000"]
    assert cells == ["dense", *accuracy, *cost]


def test_ranges_have_a_row_each_and_budgets_a_column():
    dense = {
        "policy": "dense",
        "motion": {"VID-AP50-slow": 80.0, "VID-AP50-fast": None, "objects-slow": 75.0, "objects-fast": 25.0},
        "stability": {"VID-AP50-age-0": None, "objects-age-0": None},
    }
    budget = {
        "policy": "top-r 8",
        "motion": {"VID-AP50-slow": 70.0, "VID-AP50-fast": 1.0, "objects-slow": 75.0, "objects-fast": 25.0},
        "agreement": {"VID-AP50": 5.0, "VID-AP50-age-0": 90.0, "recall": 1.0, "objects-age-0": 100.0},
    }
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in format_ranges([dense, budget]).splitlines()]
    assert rows[0] == ["VID-AP50", "% of objects", "dense", "top-r 8"]
    assert rows[2:] == [
        ["motion: slow", "75.0", "80.00", "70.00"],
        ["motion: fast", "25.0", "-", "1.00"],
        ["agreement, frames since flush: 0", "100.0", "-", "90.00"],
    ]
    assert format_ranges([{"policy": "dense"}]) == ""
