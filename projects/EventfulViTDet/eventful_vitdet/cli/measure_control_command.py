"""Measure how quickly the latency or GFlops controller follows a target that jumps, or which scene cuts are seen.

python tools/measure_control.py --config-file configs/airborne_vid/vitdet_small.yaml --input VIDEO \\
    --controller latency --targets 130 100 130 --frames 60 MODEL.WEIGHTS weights/airborne_vitdet_small.safetensors
python tools/measure_control.py --config-file configs/airborne_vid/vitdet_small.yaml --input FOLDER \\
    --controller scene-cuts --frames 60 MODEL.WEIGHTS weights/airborne_vitdet_small.safetensors
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .arguments import command_parser, parse_with_pairs, whole_number
from .console import run

SCENE_CUTS = "scene-cuts"


def execute(arguments: argparse.Namespace) -> None:
    from ..config_files import build_cfg
    from ..control_response import REGULATORS, count_scene_cuts, format_responses, measure_responses
    from ..draw.response_plot import plot_responses
    from ..predictor import load_detector
    from ..video import open_source

    cfg = build_cfg(arguments.config_file, arguments.opts)
    source = open_source(arguments.input)
    model = load_detector(cfg)
    if arguments.controller == SCENE_CUTS:
        print(count_scene_cuts(cfg, model, source, arguments.frames))
        return
    responses = measure_responses(cfg, model, source, arguments.controller, arguments.targets, arguments.frames)
    print(format_responses(arguments.controller, responses))
    if arguments.plot:
        plot_responses(responses, REGULATORS[arguments.controller].unit, arguments.plot)
        print(arguments.plot)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="configuration, as in train_net.py")
    parser.add_argument("--input", required=True, help="video, folder or pattern, as in visualize_video.py")
    parser.add_argument("--controller", required=True, choices=["latency", "gflops", SCENE_CUTS])
    parser.add_argument("--targets", type=float, nargs="+", default=[], help="in ms or GFlops, one after the other")
    parser.add_argument("--frames", type=whole_number(1), default=60, help="of each target, or video (default: 60)")
    parser.add_argument("--plot", metavar="FILE.png", help="draw costs, targets and budgets of all frames")
    parsed = parse_with_pairs(parser, words)
    if bool(parsed.targets) == (parsed.controller == SCENE_CUTS):
        parser.error("--targets belong to the controllers latency and gflops")
    if parsed.plot and parsed.controller == SCENE_CUTS:
        parser.error("--plot belongs to the controllers latency and gflops")
    return parsed


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(words)
    return run(lambda: execute(arguments), arguments)
