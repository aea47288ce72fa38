from __future__ import annotations

import pytest
from eventful_vit import Calibration, TopR
from eventful_vitdet.budgets import describe_budget, name_of_budget, parse_budgets, short_label


@pytest.mark.parametrize("budgets", [["5", "fast"], ["-1"], [-1], ["1.5"], [""], []])
def test_bad_budgets(budgets):
    with pytest.raises(ValueError, match="budget"):
        parse_budgets(budgets)


def test_repeated_budgets_run_once():
    assert list(parse_budgets(["007", "7"])) == ["7"]
    assert list(parse_budgets(["dense", 8, "8", "dense"])) == ["dense", "8"]


def test_names_of_budgets():
    names = [describe_budget(policy) for policy in parse_budgets(["dense", 64]).values()]
    assert names == ["dense", "top-r 64"] and names[1] == str(TopR(64))
    assert [short_label(name) for name in names] == ["dense", "r = 64"]


def test_names_lead_back_to_the_words_of_a_command():
    found = Calibration({"blocks.0.qkv": 3}, 16, 100, 1.5, 0.1, 3, 0.2)
    shared = Calibration({"blocks.0.qkv": 3}, 16, 100, 1.5, 0.1, 3, 0.2, {"blocks.0.qkv": 0.5})
    names = [describe_budget(policy) for policy in (None, TopR(64), found.policy(), shared.policy())]
    assert [name_of_budget(name) for name in names] == ["dense", "64", "calibrated", "calibrated"]
    assert name_of_budget("top-0.5 threshold") is None
