"""The paper's first figure: tokens that were updated, a budget that changes during the video, and what frames cost.

    python tools/make_figure.py

draws it for a rendered video of the demo and, where that data set is there, for one of airborne_vid, with the committed
weights. For another video and detector:

    python tools/make_figure.py --config-file FILE --input VIDEO --budget 0:512,100:128 --frames 200 \\
        MODEL.WEIGHTS WEIGHTS
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..control import Schedule
from ..data import dataset_folder
from ..draw.schedule_figure import plot_run, record_run
from ..predictor import load_detector
from ..video import open_source
from .checkout import REPOSITORY, checkout_file, render_demo_videos
from .command_line import add_pairs, build_cfg, command_parser, run

DEMO = ("configs/demo/vitdet_tiny.yaml", "weights/demo_vitdet_tiny.safetensors", "0:96,13:32,26:8", 40)
AIRBORNE = ("configs/airborne_vid/vitdet_small.yaml", "weights/airborne_vitdet_small.safetensors")
AIRBORNE_VIDEO, AIRBORNE_BUDGET = "videos/V_HELICOPTER_039.mp4", ("0:512,60:128,120:32", 180)


def execute(arguments: argparse.Namespace) -> None:
    output = Path(arguments.output)
    if arguments.input is not None:
        draw(arguments.config_file, arguments.opts, arguments.input, arguments.budget, arguments.frames, output)
        return
    config, weights, budget, frames = DEMO
    options = ["MODEL.WEIGHTS", str(checkout_file(weights)), *arguments.opts]
    video = render_demo_videos() / "videos" / "test_000.mp4"
    draw(checkout_file(config), options, video, budget, frames, output.with_name(f"{output.stem}_demo.png"))
    video = find_airborne_vid() / AIRBORNE_VIDEO
    if not video.is_file():
        print(f"{video} is not there: no figure of airborne_vid (see datasets/README.md)")
        return
    options = ["MODEL.WEIGHTS", str(checkout_file(AIRBORNE[1])), *arguments.opts]
    draw(checkout_file(AIRBORNE[0]), options, video, *AIRBORNE_BUDGET, output.with_name(f"{output.stem}_airborne.png"))


def find_airborne_vid() -> Path:
    """Under DETECTRON2_DATASETS, else beside the repository."""
    folder = Path(dataset_folder("airborne_vid"))
    return folder if folder.is_dir() else REPOSITORY.parent / "shared" / "data" / "airborne_vid"


def draw(config: str | Path, options: list[str], video: str | Path, budget: str, frames: int, path: Path) -> None:
    cfg = build_cfg(str(config), options)
    schedule = Schedule.parse(budget)
    source = open_source(str(video))
    plot_run(record_run(cfg, load_detector(cfg), source, schedule, frames=frames), str(path))
    print(path)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("--config-file", default="", metavar="FILE", help="with --input: configuration of the detector")
    parser.add_argument("--input", help="video, folder or pattern, as in visualize_video.py")
    parser.add_argument("--budget", default="0:512,60:128,120:32", metavar="SCHEDULE", help="tokens per gate by frame")
    parser.add_argument("--frames", type=int, default=180, help="how many frames from the video's beginning")
    parser.add_argument("--output", default="output/figure/figure.png", metavar="FILE.png")
    add_pairs(parser)
    arguments = parser.parse_args(words)
    if (arguments.input is None) != (not arguments.config_file):
        parser.error("--input and --config-file belong together")
    if arguments.frames < 1:
        parser.error("--frames is 1 or larger")
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(words)
    return run(lambda: execute(arguments))
