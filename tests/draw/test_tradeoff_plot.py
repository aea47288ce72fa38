from __future__ import annotations

import json

import cv2
from eventful_vitdet.draw.tradeoff_plot import plot_budgets, plot_tradeoff
from eventful_vitdet.evaluation import evaluate_budgets


def test_plot(cfg, model, tmp_path):
    evaluate_budgets(cfg, model, ["dense", 5, 9])
    path = tmp_path / "plots" / "tradeoff.png"
    plot_budgets(f"{cfg.OUTPUT_DIR}/inference/budgets.json", str(path), "a title")
    picture = cv2.imread(str(path))
    assert picture.shape[1] > picture.shape[0] > 300 and picture.std() > 5


def test_plot_without_defined_values(cfg, model, tmp_path):
    (results,) = evaluate_budgets(cfg, model, ["dense"]).values()
    results = json.loads(json.dumps(results))
    results[0]["bbox"]["AP50"] = None
    plot_tradeoff(results, str(tmp_path / "a.png"))
    assert cv2.imread(str(tmp_path / "a.png")) is not None
