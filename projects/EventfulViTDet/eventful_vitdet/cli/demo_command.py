"""The demonstration: a committed tiny detector on rendered videos, dense and at four budgets.

    python tools/demo.py

Renders the test videos, evaluates the same weights at every budget, and writes tables, a plot, a report and one
annotated video per budget to output/demo.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model

from ..benchmark import format_times, time_budgets
from ..checkpoint import VideoCheckpointer
from ..data import build_video_test_loader
from ..data.coco_vid import group_by_video
from ..draw.annotated_budgets import annotate_budgets
from ..draw.tradeoff_plot import plot_budgets
from ..evaluation import evaluate_budgets
from ..files import write_atomically
from ..report import write_report
from .checkout import checkout_file, render_demo_videos
from .command_line import add_pairs, build_cfg, check_output_dir, command_parser, run

CONFIG = "configs/demo/vitdet_tiny.yaml"
WEIGHTS = "weights/demo_vitdet_tiny.safetensors"
BUDGETS = ["dense", "64", "32", "16", "8"]
MOVING_VIDEO = 0
"""Index of the test video to annotate: several moving objects before a static camera."""


def execute(arguments: argparse.Namespace) -> None:
    options = ["MODEL.WEIGHTS", str(checkout_file(WEIGHTS)), "OUTPUT_DIR", "output/demo", *arguments.opts]
    cfg = build_cfg(str(checkout_file(CONFIG)), options)
    check_output_dir(cfg.OUTPUT_DIR)
    render_demo_videos()
    model = build_model(cfg).eval()
    VideoCheckpointer(model, weights_set=cfg.MODEL.WEIGHTS_SET).load(cfg.MODEL.WEIGHTS)
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


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    add_pairs(parser)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(words)
    return run(lambda: execute(arguments))
