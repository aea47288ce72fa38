"""tools/*.py: each leads to its command."""

from __future__ import annotations

import runpy
import sys

import pytest

COMMANDS = {
    "benchmark": "Time ViTDet-B per frame",
    "benchmark_pyramid": "Time what follows the backbone",
    "check_dataset": "Count what a data set holds",
    "convert_coco": "Make a COCO-VID file of plain COCO",
    "demo": "The demonstration",
    "export_weights": "Take the weights out of a training checkpoint",
    "live": "A local web page",
    "make_figure": "The paper's first figure",
    "measure_control": "Measure how quickly",
    "model_table": "Parameters and operations",
    "operation_table": "Count the operations of ViTDet-B",
    "report": "Write a report of an evaluation",
    "train_net": "--budgets BUDGET",
    "visualize_video": "Detections on video",
}


def test_every_tool_is_listed(repository):
    assert {path.stem for path in (repository / "tools").glob("*.py")} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help(repository, name, monkeypatch, capsys):
    path = str(repository / "tools" / f"{name}.py")
    monkeypatch.setattr(sys, "argv", [path, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(path, run_name="__main__")
    text = capsys.readouterr().out
    assert end.value.code == 0 and text.startswith(f"usage: {name}.py") and COMMANDS[name] in text
