"""The sweep over block sizes with a clock of its own, and the table that it writes."""

from __future__ import annotations

import importlib

import pytest
import torch
from eventful_vit.ops import gpu

if gpu.load_kernels() is None:
    pytest.skip(f"the GPU's kernels do not run: {gpu.why_unavailable()}", allow_module_level=True)

from eventful_vit.ops.gpu import tuning
from eventful_vitdet.gpu_report.tile_cases import BRANCHES, MODULES, Branch, Layer, Work, present_tile
from eventful_vitdet.gpu_report.tile_sweep import SIGNATURES, compare_products, sweep, table_text, use_tile

CPU = torch.device("cpu")
FAST, SLOW, BROKEN = (
    {"ROWS": rows, "COLUMNS": 16, "DEPTH": 64, "num_warps": 4, "num_stages": 2} for rows in (32, 64, 128)
)


def measure(tiles: list[dict], seconds: dict) -> dict:
    """Sweep one branch whose work says which tile it was given; `seconds` by its rows."""
    module = importlib.import_module(f"eventful_vit.ops.gpu.{MODULES['linear_tile']}")

    def prepare(device: torch.device):
        return lambda: module.linear_tile(512, 3072)

    def timer(run) -> float:
        rows, columns = (run()[name] for name in ("ROWS", "COLUMNS"))
        if rows == BROKEN["ROWS"]:
            raise RuntimeError("out of resource: shared memory\nmore")
        return seconds.get((rows, columns), 1.0)

    branch = Branch("linear_tile", "rows <= 1024", (Work("some", (512, 3072), prepare),), tuple(tiles))
    return sweep([branch], timer, CPU, lambda result: None)


def test_the_fastest_wins_and_a_failure_is_noted():
    result = measure([SLOW, BROKEN, FAST], {(32, 16): 0.5, (64, 16): 2.0})
    (branch,) = result["branches"]
    assert branch["winner"] == FAST and branch["gain"] == 2
    assert [entry["error"] for entry in branch["tried"]] == [None, "RuntimeError: out of resource: shared memory", None]
    assert "return " + str(FAST).replace("'", '"') in result["table"]


def test_the_present_tile_stays_where_nothing_is_clearly_faster():
    (branch,) = measure([SLOW, FAST], {(32, 16): 0.99, (64, 16): 2.0})["branches"]
    assert branch["winner"] == tuning.linear_tile(512, 3072) and branch["gain"] == 1


def test_a_tile_is_used_inside_and_not_afterwards():
    for function, module in MODULES.items():
        owner = importlib.import_module(f"eventful_vit.ops.gpu.{module}")
        with use_tile(function, FAST):
            assert getattr(owner, function)("anything") == FAST
        assert getattr(owner, function) is getattr(tuning, function)


@pytest.mark.parametrize("layer", [Layer(70, 32, 48, gelu=True), Layer(9, 32, 16, plus=True)])
def test_both_ways_compute_the_layer_that_is_compared(layer):
    results = []

    def timer(run) -> float:
        results.append(run().float())
        return 1e-3 * len(results)

    (row,) = compare_products([layer], timer, CPU)
    assert row == {"layer": layer.name, "library": 1.0, "kernel": 2.0, "chosen": "kernel"}
    torch.testing.assert_close(*results, atol=0.1, rtol=0.05)


@pytest.mark.parametrize("branch", BRANCHES, ids=lambda branch: branch.name)
def test_branches_are_those_of_the_table(branch):
    """The table written from the present tiles decides as the present one for all works; candidates are other tiles of
    the same kind."""
    own = [other for other in BRANCHES if other.function == branch.function]
    written = [{"function": b.function, "condition": b.condition, "winner": present_tile(b, b.works[0])} for b in own]
    names = {"torch": torch, **vars(tuning)}
    exec(table_text(written), names)
    for work in branch.works:
        assert names[branch.function](*work.arguments) == present_tile(branch, work)
    for tile in branch.tiles:
        assert set(tile) == set(present_tile(branch, branch.works[0]))
        assert tile != present_tile(branch, branch.works[0])


def test_every_function_of_the_table_is_swept():
    functions = {name for name, value in vars(tuning).items() if name.endswith("_tile") and callable(value)}
    assert functions == set(SIGNATURES) == set(MODULES) == {branch.function for branch in BRANCHES}
    for function in functions:
        assert [b.condition for b in BRANCHES if b.function == function].index(None) >= 0
