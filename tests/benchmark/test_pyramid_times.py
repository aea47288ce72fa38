"""The benchmark of what follows the backbone, on a tiny detector."""

import pytest
import torch
from eventful_vitdet.benchmark.pyramid_times import patterns, time_parts, time_patterns


@pytest.fixture
def model(tiny_model):
    return tiny_model(
        MODEL__EVENTFUL__PYRAMID__ENABLED=True,
        MODEL__RPN__IN_FEATURES=["p3", "p4", "p5", "p6"],
        MODEL__ANCHOR_GENERATOR__SIZES=[[16], [32], [64], [96]],
    )


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]


def test_patterns_are_an_eighth_of_the_tokens():
    for name, pattern in patterns(64).items():
        assert int(pattern.sum()) == pytest.approx(0 if name == "none" else 512, rel=0.05), name


def test_tables(model):
    with torch.no_grad():
        lines = cells(time_patterns(model, 6, 1))
        parts = cells(time_parts(model, 6, 1))
    assert [line[0] for line in lines] == ["dense", *patterns(6)]
    assert all(float(line[3]) > 0 for line in lines)
    assert len(parts) == 6
