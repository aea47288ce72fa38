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

from .arguments import add_pairs, command_parser, score, whole_number
from .checkout import checkout_file, render_demo_videos
from .console import run
from .demo_command import CONFIG, WEIGHTS

DEMO = (CONFIG, WEIGHTS, "0:96,13:32,26:8", 40)
"""Configuration, weights, budget and number of frames."""
AIRBORNE = (
    "configs/airborne_vid/vitdet_small.yaml",
    "weights/airborne_vitdet_small.safetensors",
    "0:800,60:200,120:50",
    180,
)
AIRBORNE_VIDEO = "videos/V_HELICOPTER_039.mp4"


def execute(arguments: argparse.Namespace) -> None:
    output = Path(arguments.output)
    if arguments.input is not None:
        draw(arguments, arguments.config_file, arguments.opts, arguments.input, output)
        return
    config, weights, arguments.budget, arguments.frames = DEMO
    options = ["MODEL.WEIGHTS", str(checkout_file(weights)), *arguments.opts]
    video = render_demo_videos() / "videos" / "test_000.mp4"
    draw(arguments, str(checkout_file(config)), options, str(video), output.with_name(f"{output.stem}_demo.png"))
    video = airborne_folder() / AIRBORNE_VIDEO
    if not video.is_file():
        print(f"{video} is not there: no figure of airborne_vid (see datasets/README.md)")
        return
    config, weights, arguments.budget, arguments.frames = AIRBORNE
    options = ["MODEL.WEIGHTS", str(checkout_file(weights)), *arguments.opts]
    draw(arguments, str(checkout_file(config)), options, str(video), output.with_name(f"{output.stem}_airborne.png"))


def airborne_folder() -> Path:
    """Where the data set is, or would be."""
    from ..data import dataset_folder

    return Path(dataset_folder("airborne_vid"))


def draw(arguments: argparse.Namespace, config: str, options: list[str], video: str, path: Path) -> None:
    """Draw one figure; a schedule that is longer than the video is shortened to it, and that is said."""
    from ..config_files import build_cfg
    from ..controllers import Schedule
    from ..draw.schedule_figure import fit_schedule, plot_run, record_run
    from ..predictor import load_detector
    from ..video import open_source

    cfg = build_cfg(config, options)
    source = open_source(video)
    frames = min(arguments.frames, source.num_frames or arguments.frames)
    wanted = Schedule.parse(arguments.budget)
    schedule = fit_schedule(wanted, frames)
    if schedule.steps != wanted.steps:
        print(f"{source.name}: {frames} frames, so the schedule is {schedule}")
    min_score = arguments.confidence_threshold
    plot_run(record_run(cfg, load_detector(cfg), source, schedule, frames=frames, min_score=min_score), str(path))
    print(path)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    option = parser.add_argument
    option("--config-file", default="", metavar="FILE", help="with --input: configuration of the detector")
    option("--input", help="video, folder or pattern, as in visualize_video.py")
    option("--budget", default="0:512,60:128,120:32", metavar="SCHEDULE", help="tokens per gate by frame")
    option("--frames", type=whole_number(1), default=180, metavar="N", help="from the video's beginning (default: 180)")
    option("--confidence-threshold", type=score, default=0.6, metavar="SCORE", help="weakest to draw (default: 0.6)")
    option("--output", default="output/figure/figure.png", metavar="FILE.png")
    add_pairs(parser)
    arguments = parser.parse_args(words)
    if (arguments.input is None) != (not arguments.config_file):
        parser.error("--input and --config-file belong together")
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(words)
    return run(lambda: execute(arguments), arguments)
