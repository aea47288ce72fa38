"""The demonstration, whole, with the committed weights."""

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET

import cv2
import pytest


@pytest.mark.long
def test_demo_shows_where_budgets_begin_to_cost(tmp_path, repository):
    script = str(repository / "tools" / "demo.py")
    environment = {**os.environ, "DETECTRON2_DATASETS": str(tmp_path / "datasets")}
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "output" / "demo" / "inference"
    results = {result["policy"]: result for result in json.loads((folder / "budgets.json").read_text())}
    ap50 = {policy: result["bbox"]["AP50"] for policy, result in results.items()}
    dense, least = ap50["dense"], min(ap50.values())
    assert len(ap50) == 5
    assert dense >= 60
    assert least < dense - 5  # the smallest budget costs visibly
    assert sorted(ap50.values())[-2] > dense - 3  # and the largest hardly anything
    gflops = [result["gflops_per_frame"]["total"]["mean"] for result in results.values()]
    assert gflops == sorted(gflops, reverse=True)
    assert ET.parse(folder / "tradeoff.svg").getroot().tag.endswith("svg")
    for budget in ("dense", "8"):
        video = cv2.VideoCapture(str(folder / "videos" / f"{budget}.mp4"))
        assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 40
    video, table = (done.stdout.index(text) for text in ("videos/8.mp4\n", "\n| budget"))
    assert video < table  # there is something to look at while the rest runs
    assert str(folder.relative_to(tmp_path) / "tradeoff.svg") in done.stdout
    report = (folder / "report.html").read_text()
    assert "Largest disagreements" in report and "data:image/jpeg" in report and "No pictures" not in report
    assert f"report: {(folder / 'report.html').relative_to(tmp_path)}" in done.stdout
