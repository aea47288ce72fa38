"""The demonstration: a committed tiny detector on rendered videos, dense and at four budgets.

    python tools/demo.py

Renders the test videos, annotates one of them at every budget, evaluates the same weights at every budget, and writes
these videos, tables, a plot and a report to output/demo. An interrupted run continues with the same command; after a
complete one, everything is measured again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import add_pairs, command_parser
from .console import run

if TYPE_CHECKING:
    from detectron2.config import CfgNode
    from torch import nn

CONFIG = "configs/demo/vitdet_tiny.yaml"
WEIGHTS = "weights/demo_vitdet_tiny.safetensors"
BUDGETS = ["dense", "64", "32", "16", "8"]
TITLE = "Rendered videos, tiny ViTDet"
MOVING_VIDEO = 0
"""Index of the test video to annotate: several moving objects before a static camera."""
UNFINISHED = "demo_unfinished"
"""A file that is there from the beginning of a demo to its end."""


def execute(arguments: argparse.Namespace) -> None:
    from ..config_files import build_cfg
    from ..draw.annotated_budgets import annotate_budgets
    from ..evaluation import evaluate_budgets
    from ..files import write_atomically
    from ..predictor import load_detector
    from ..report import write_report, write_tradeoff
    from .checkout import checkout_file, render_demo_videos
    from .command_line import check_output_dir

    options = ["MODEL.WEIGHTS", str(checkout_file(WEIGHTS)), "OUTPUT_DIR", "output/demo", *arguments.opts]
    cfg = build_cfg(str(checkout_file(CONFIG)), options)
    check_output_dir(cfg.OUTPUT_DIR)
    render_demo_videos()
    model = load_detector(cfg)
    inference = Path(cfg.OUTPUT_DIR, "inference")
    (name,) = cfg.DATASETS.TEST
    with unfinished(inference) as resumes:
        # First, as they take seconds: there is something to look at while the evaluation runs.
        for video in annotate_budgets(cfg, model, BUDGETS, name, str(inference / "videos"), video_index=MOVING_VIDEO):
            print(f"video: {video}", flush=True)
        # Complete results are of another run, and the times are to be of this one.
        evaluate_budgets(cfg, model, BUDGETS, restart=arguments.restart or not resumes)
        plot, report = inference / "tradeoff.svg", inference / "report.html"
        write_tradeoff(str(inference), str(plot), TITLE)
        write_report(str(inference), str(report), dataset=name, title=TITLE)
        times = measure_times(cfg, model, name)
        write_atomically(str(inference / "times.md"), times + "\n")
        print(f"Later frames of one video in memory, the budgets in turn, medians\n\n{times}\n")
    tables = [("table", inference / "budgets.md"), ("times", inference / "times.md")]
    for title, path in (*tables, ("plot", plot), ("report", report)):
        print(f"{title}: {path}")


@contextmanager
def unfinished(folder: Path) -> Iterator[bool]:
    """Mark a folder as long as its results are being made; yields whether an earlier run was interrupted there."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / UNFINISHED
    was_there = mark.exists()
    mark.touch()
    yield was_there
    mark.unlink()  # not where the block was left by an error or an interruption


def measure_times(cfg: CfgNode, model: nn.Module, dataset_name: str) -> str:
    """A table of the times of later frames, side by side."""
    from ..benchmark import format_times, time_budgets
    from ..data import build_video_test_loader, load_frames
    from ..data.coco_vid import group_by_video

    frames, _ = load_frames(dataset_name)
    loader = build_video_test_loader(cfg, dataset_name, group_by_video(frames)[MOVING_VIDEO])
    return format_times(time_budgets(model, [frame for batch in loader for frame in batch], BUDGETS))


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("--restart", action="store_true", help="start over, also after an interruption")
    add_pairs(parser)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(words)
    return run(lambda: execute(arguments), arguments)
