"""The demonstration of action recognition, whole, with the committed weights."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest


@pytest.mark.long
def test_demo_shows_where_budgets_begin_to_cost(tmp_path, repository):
    script = str(repository / "tools" / "demo_actions.py")
    environment = {**os.environ, "DETECTRON2_DATASETS": str(tmp_path / "datasets")}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "output" / "demo_actions" / "inference"
    results = json.loads((folder / "budgets.json").read_text())
    accuracy = [result["accuracy"]["action_top1"] for result in results]
    assert len(accuracy) == 5
    assert accuracy[0] >= 55
    assert accuracy[1] > accuracy[0] - 5  # the largest budget costs hardly anything
    assert min(accuracy) < accuracy[0] - 5  # and the smallest one does
    gflops = [result["gflops_per_clip"]["total"] for result in results]
    assert gflops == sorted(gflops, reverse=True)
    assert ET.parse(folder / "tradeoff.svg").getroot().tag.endswith("svg")
    assert str(folder.relative_to(tmp_path) / "tradeoff.svg") in done.stdout
