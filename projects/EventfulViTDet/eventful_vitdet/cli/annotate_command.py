"""Detections on video: boxes, the tokens that were updated, and what every frame costs.

    python tools/visualize_video.py --config-file configs/airborne_vid/vitdet_small.yaml \\
        --input video.mp4 --output out.mp4 MODEL.WEIGHTS weights/airborne_vitdet_small.safetensors

The input is a video file, a folder or quoted pattern of images or videos, rtsp:// or http://, or a camera's number.
See docs/visualize.md.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from ..control import budget_options, build_runtime_control
from ..draw.annotated_video import AnnotateOptions, annotate_video, describe_costs
from ..predictor import load_detector
from ..video import open_source
from .command_line import add_pairs, build_cfg, command_parser, run, whole_number


def execute(arguments: argparse.Namespace) -> None:
    cfg = build_cfg(arguments.config_file, [*budget_options(arguments.budget), *arguments.opts])
    source = open_source(arguments.input)
    model = load_detector(cfg)
    options = AnnotateOptions(
        side_by_side_dense=arguments.side_by_side_dense,
        show_tokens=arguments.show_tokens,
        save_json=arguments.save_json,
        min_score=arguments.confidence_threshold,
        save_frames=arguments.save_frames,
        max_frames=arguments.max_frames,
        window=not arguments.no_window,
    )
    control = build_runtime_control(cfg, model)
    costs = annotate_video(cfg, model, source, arguments.output, options, control)
    print(f"{arguments.output}: {describe_costs(costs)}")
    if control.controller.state is not None:
        print(control.controller.state)


def numbers(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} are not numbers of frames, such as 20,60")
    return sorted({int(word) for word in words})


def score(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a score; scores go from 0 to 1")
    return number


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    option = parser.add_argument
    option("--config-file", required=True, metavar="FILE", help="configuration, as in train_net.py")
    option("--input", required=True, help="video, folder, 'pattern*', rtsp://..., http://..., or number of a camera")
    option("--output", required=True, metavar="FILE.mp4", help="the annotated video")
    option("--side-by-side-dense", action="store_true", help="run the dense model too, shown on the right")
    option("--show-tokens", metavar="any|BLOCK", help="tint updated tokens: any, a block (3), or a gate of it (3.qkv)")
    option("--budget", metavar="SCHEDULE", help="tokens per gate: 256, or by frame as in 0:512,120:128,240:2048")
    option("--save-json", metavar="FILE.jsonl", help="detections and costs, a line per frame")
    option("--confidence-threshold", type=score, default=0.3, metavar="SCORE", help="weakest to draw (default: 0.3)")
    option("--save-frames", type=numbers, default=[], metavar="N,N,...", help="write these frames as pictures too")
    option("--max-frames", type=whole_number(1), metavar="N", help="stop after so many frames")
    option("--no-window", action="store_true", help="show nothing while writing, even where there is a display")
    add_pairs(parser)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(words)
    return run(lambda: execute(arguments))
