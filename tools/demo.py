#!/usr/bin/env python3
"""The demonstration: a committed tiny detector on rendered videos, dense and at four budgets.

    python tools/demo.py

Renders the test videos, evaluates the same weights at every budget, and writes tables, a plot, a report and one
annotated video per budget to output/demo.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import eventful_vitdet  # noqa: F401  (makes detectron2 importable)
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from eventful_vitdet.benchmark import format_times, time_budgets
from eventful_vitdet.checkpoint import VideoCheckpointer
from eventful_vitdet.command_line import build_cfg, check_output_dir, run
from eventful_vitdet.data import build_video_test_loader, dataset_folder
from eventful_vitdet.data.coco_vid import group_by_video
from eventful_vitdet.evaluation import evaluate_budgets
from eventful_vitdet.files import write_atomically
from eventful_vitdet.visualization import annotate_budgets, plot_budgets
from eventful_vitdet.visualization.report import write_report

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "demo" / "vitdet_tiny.yaml"
WEIGHTS = ROOT / "weights" / "demo_vitdet_tiny.safetensors"
BUDGETS = ["dense", "64", "32", "16", "8"]
MOVING_VIDEO = 0
"""Index of the test video to annotate: several moving objects before a static camera."""


def main(arguments: argparse.Namespace) -> None:
    options = ["MODEL.WEIGHTS", str(WEIGHTS), "OUTPUT_DIR", "output/demo", *arguments.opts]
    cfg = build_cfg(str(CONFIG), options)
    check_output_dir(cfg.OUTPUT_DIR)
    renderer = [sys.executable, str(ROOT / "datasets" / "render_synthetic_vid.py")]
    rendered = subprocess.run([*renderer, "--output", dataset_folder("demo_vid"), "--split", "test"])
    if rendered.returncode:
        raise OSError(f"the test videos could not be rendered to {dataset_folder('demo_vid')}")
    model = build_model(cfg).eval()
    VideoCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    evaluate_budgets(cfg, model, BUDGETS, restart=True)  # the times are to be those of this run
    inference = Path(cfg.OUTPUT_DIR, "inference")
    plot = inference / "tradeoff.png"
    plot_budgets(str(inference / "budgets.json"), str(plot), "Rendered videos, tiny ViTDet: accuracy against cost")
    (name,) = cfg.DATASETS.TEST
    report = inference / "report.html"
    write_report(str(inference), str(report), dataset=name, title="Rendered videos, tiny ViTDet")
    loader = build_video_test_loader(cfg, name, group_by_video(DatasetCatalog.get(name))[MOVING_VIDEO])
    times = format_times(time_budgets(model, [frame for batch in loader for frame in batch], BUDGETS))
    write_atomically(str(inference / "times.md"), times + "\n")
    print(f"Later frames of one video in memory, the budgets in turn, medians\n\n{times}\n")
    videos = annotate_budgets(cfg, model, BUDGETS, name, str(inference / "videos"), video_index=MOVING_VIDEO)
    print(f"{len(DatasetCatalog.get(name))} frames evaluated at {len(BUDGETS)} budgets")
    tables = [("table", inference / "budgets.md"), ("times", inference / "times.md")]
    outputs = [*tables, ("plot", plot), *(("video", video) for video in videos)]
    for title, path in (*outputs, ("report", report)):
        print(f"{title}: {path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="configuration, as in train_net.py")
    parsed = parser.parse_args()
    sys.exit(run(lambda: main(parsed)))
