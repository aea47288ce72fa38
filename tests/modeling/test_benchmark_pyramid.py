"""tools/benchmark_pyramid.py on a tiny detector: what it prints is measured, and of the right operations."""

import importlib.util

import pytest
import torch


@pytest.fixture
def tool(repository):
    spec = importlib.util.spec_from_file_location("benchmark_pyramid", repository / "tools" / "benchmark_pyramid.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def model(tiny_model):
    return tiny_model(
        MODEL__EVENTFUL__PYRAMID__ENABLED=True,
        MODEL__RPN__IN_FEATURES=["p3", "p4", "p5", "p6"],
        MODEL__ANCHOR_GENERATOR__SIZES=[[16], [32], [64], [96]],
    )


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]


def test_patterns_are_an_eighth_of_the_tokens(tool):
    for name, pattern in tool.patterns(64).items():
        assert int(pattern.sum()) == pytest.approx(0 if name == "none" else 512, rel=0.05), name


def test_tables(tool, model):
    with torch.no_grad():
        lines = cells(tool.time_patterns(model, 6, 1))
        parts = cells(tool.time_parts(model, 6, 1))
    assert [line[0] for line in lines] == ["dense", *tool.patterns(6)]
    assert all(float(line[3]) > 0 for line in lines)
    assert len(parts) == 6
