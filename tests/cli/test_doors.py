"""tools/*.py: each leads to its command."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import eventful_vitdet
import pytest

COMMANDS = {
    "advise": "Find the budget that reaches a target",
    "benchmark": "Time ViTDet-B or a ViT of timm per frame",
    "benchmark_pyramid": "Time what follows the backbone",
    "check_claims": "Look for numbers",
    "check_dataset": "Count the contents of a data set",
    "compare_authors": "Run ViTDet-B here and in the code",
    "convert_coco": "Make a COCO-VID file from plain COCO",
    "demo": "The demonstration",
    "demo_actions": "The demonstration of action recognition",
    "export_weights": "Take the weights out of a training checkpoint",
    "gpu_report": "Check and measure everything on a GPU",
    "live": "Show the detections of videos or cameras",
    "make_figure": "The paper's first figure",
    "measure_control": "Measure how quickly",
    "model_table": "Parameters and operations",
    "operation_table": "Count the operations of ViTDet-B",
    "report": "Write a report of an evaluation",
    "train_net": "--budgets BUDGET",
    "visualize_video": "Draw detections on video",
}


def test_every_tool_is_listed(repository):
    assert {path.stem for path in (repository / "tools").glob("*.py")} == set(COMMANDS)


@pytest.mark.parametrize("path", [*(f"tools/{name}.py" for name in COMMANDS), "datasets/convert_imagenet_vid.py"])
def test_a_door_imports_nothing_that_takes_time(repository, path):
    """So that Ctrl-C is heard from the first moment on: see test_door.py."""
    code = (repository / path).read_text()
    imports = [line for line in code.splitlines() if line.startswith(("import ", "from "))]
    assert imports == ["from eventful_vitdet.cli.door import Door"]
    (command,) = re.findall(r'^door = Door\("(\w+)"\)$', code, re.MULTILINE)
    assert (Path(eventful_vitdet.__file__).parent / "cli" / f"{command}.py").is_file()


@pytest.mark.parametrize("name", COMMANDS)
def test_help(repository, name, monkeypatch, capsys):
    path = str(repository / "tools" / f"{name}.py")
    monkeypatch.setattr(sys, "argv", [path, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(path, run_name="__main__")
    text = capsys.readouterr().out
    assert end.value.code == 0 and text.startswith(f"usage: {name}.py") and COMMANDS[name] in text


LOOK = """
import contextlib, io, json, runpy, sys
heavy = {}
for path in sys.argv[1:]:
    sys.argv = [path, "--help"]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            runpy.run_path(path, run_name="__main__")
    except SystemExit:
        pass
    heavy[path] = sorted({"torch", "numpy", "cv2", "detectron2"} & set(sys.modules))
print(json.dumps(heavy))
"""


def test_help_and_mistakes_need_no_torch(repository):
    """So they are answered at once; importing torch takes seconds."""
    tools = [str(path) for path in sorted((repository / "tools").glob("*.py"))]
    tools.append(str(repository / "datasets" / "convert_imagenet_vid.py"))
    done = subprocess.run([sys.executable, "-c", LOOK, *tools], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {tool: [] for tool in tools} and done.stderr == ""
