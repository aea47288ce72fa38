"""The operation table: counted without content, as with content, and as the reference; and what it says if not so."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from eventful_vit import EventfulViT, Policy, count_operations
from eventful_vitdet.benchmark.operation_counts import (
    LaterFrame,
    count_dense,
    count_later,
    format_operation_table,
    gate_masks,
    operation_table,
    read_reference,
)
from eventful_vitdet.cli.operation_table_command import main
from eventful_vitdet.config_files import build_cfg
from eventful_vitdet.errors import EvaluationError

CONFIG = "imagenet_vid/vitdet_b_672_eventful_r256.yaml"


@pytest.fixture(scope="module")
def reference(request) -> dict:
    return read_reference(str(request.config.rootpath / "tests" / "golden" / "vitdet_b_counts.json"))


def part(reference: dict, configuration: str, r: int | None = None) -> dict:
    """A reference of one configuration, with one budget."""
    chosen = copy.deepcopy(reference["configurations"][configuration])
    if r is not None:
        chosen["by_k"] = {str(r): chosen["by_k"][str(r)]}
    return {**reference, "configurations": {configuration: chosen}}


@pytest.mark.parametrize(
    ("configuration", "r", "frames"),
    [
        ("base_1024", None, 1),
        ("spatial_672", None, 1),
        ("temporal_672", 384, 2),
        ("temporal_1024", 1536, 2),
        ("tokenwise_672", 256, 2),
        ("spatiotemporal_672", 128, 3),
        ("spatiotemporal_1024", 512, 3),
    ],
)
def test_counts_of_vitdet_b(reference, configuration, r, frames):
    rows = operation_table(build_cfg(CONFIG), part(reference, configuration, r))
    assert len(rows) == frames
    for row in rows:
        assert row.differences() == []
        assert sum(row.counted.values()) > 10**10  # two empty sides would agree as well


@pytest.mark.long
def test_every_row(reference):
    rows = operation_table(build_cfg(CONFIG), reference)
    assert len(rows) == 32 and not any(row.differences() for row in rows)


class GivenTokens(Policy):
    """Hands out prepared masks (N,), one for each gate in its turn."""

    def __init__(self, masks):
        self._masks = iter(masks)

    def choose(self, norms):
        return next(self._masks).expand(norms.shape)


@pytest.mark.parametrize("attention", ["tokenwise", "full", "query-key"])
@pytest.mark.parametrize("pool", [1, 2])
def test_a_trace_that_is_made_up_counts_as_one_of_a_frame(attention, pool):
    options = {"embed_dim": 16, "depth": 3, "num_heads": 2, "use_rel_pos": True, "window_size": 4, "kv_pool": pool}
    size, frame = (48, 80), LaterFrame(13, {1: 7, 2: 13} if pool > 1 else {}, {})
    with torch.device("meta"):
        empty = EventfulViT(size, 8, window_block_indexes=[0], attention=attention, **options).eval()
    real = EventfulViT(size, 8, window_block_indexes=[0], attention=attention, **options).eval()
    real.set_policy(GivenTokens(gate_masks(empty, size, frame)))
    with count_operations(real) as counts:
        for counted in (count_dense(empty, size), count_later(empty, size, attention, frame)):
            counts.clear()
            real(torch.randn(1, 3, *size))
            assert {name: macs for name, macs in counted.items() if macs} == {
                name: macs for name, macs in counts.by_category().items() if macs and name != "embedding"
            }


def test_selections_touch_as_many_pooled_keys_as_listed():
    vit = EventfulViT(64, 8, embed_dim=8, depth=2, num_heads=1, window_size=4, window_block_indexes=[0], kv_pool=2)
    masks = dict(zip(vit.gate_names, gate_masks(vit, (64, 64), LaterFrame(9, {1: 5}, {}))))
    assert all(mask.sum() == 9 for mask in masks.values())
    cells = masks["blocks.1.qkv"].view(4, 2, 4, 2).any(dim=3).any(dim=1)
    assert cells.sum() == 5


@pytest.mark.parametrize("keys", [2, 10])
def test_selections_that_cannot_be(keys):
    vit = EventfulViT(64, 8, embed_dim=8, depth=1, num_heads=1, kv_pool=2)
    with pytest.raises(EvaluationError, match=f"9 tokens cannot touch {keys} keys, each pooled from 4 tokens"):
        gate_masks(vit, (64, 64), LaterFrame(9, {0: keys}, {}))


def test_a_reference_of_another_model(reference):
    other = {**reference, "model": {**reference["model"], "global_block_indexes": [5, 11]}}
    with pytest.raises(EvaluationError, match="MODEL.VIT.WINDOW_BLOCKS"):
        operation_table(build_cfg(CONFIG), other)


@pytest.fixture
def tool(tmp_path):
    """Runs the command on a reference; returns the exit code."""

    def call(content: str) -> int:
        path = tmp_path / "reference.json"
        path.write_text(content)
        return main(["--reference", str(path)])

    return call


def test_the_tool_prints_a_table(tool, reference, capsys):
    assert tool(json.dumps(part(reference, "temporal_672", 256))) == 0
    output = capsys.readouterr().out
    assert "| temporal_672  | 256 | later |  32.935 |    32.935 |" in output
    assert "all 2 frames agree" in output


def test_one_operation_less_is_a_mismatch(tool, reference, capsys):
    wrong = part(reference, "temporal_672", 256)
    wrong["configurations"]["temporal_672"]["by_k"]["256"]["later_frame"]["gate_flops"] -= 1
    assert tool(json.dumps(wrong)) == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1].endswith("|     no |")
    assert "temporal_672, r 256, later frame: gate 203,551,488 (reference: 203,551,487)" in captured.err
    assert "error: 1 of 2 frames differ" in captured.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "no model, configurations; is this a file of reference counts?"),
        ('{"model": {}, "configurations": {}}', "model: no dim, depth"),
    ],
)
def test_files_that_are_no_reference(tool, capsys, content, message):
    assert tool(content) == 1
    assert message in capsys.readouterr().err


def test_dense_over_this(reference):
    both = part(reference, "base_672")
    both["configurations"].update(part(reference, "spatial_672")["configurations"])
    table = format_operation_table(operation_table(build_cfg(CONFIG), both))
    assert [line.split("|")[6].strip() for line in table.splitlines()] == [
        "dense / this",
        "-----------:",
        "1.00",
        "1.09",
    ]
