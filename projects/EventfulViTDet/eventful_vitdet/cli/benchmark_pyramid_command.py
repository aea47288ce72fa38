"""Time what follows the backbone of ViTDet-B: the eventful pyramid against the dense one, and the parts of a frame.

    python tools/benchmark_pyramid.py
    python tools/benchmark_pyramid.py --size 672 --rounds 9

Random weights, and tokens that change where a pattern says: no backbone runs. Tables in markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .arguments import command_parser, whole_number
from .console import run

CONFIG = "imagenet_vid/vitdet_b_1024_eventful_r512.yaml"  # by its name below configs/


def execute(arguments: argparse.Namespace) -> None:
    import torch
    from detectron2.modeling import build_model

    from ..benchmark.pyramid_times import time_parts, time_patterns, time_units
    from ..config import config_errors
    from ..config_files import build_cfg

    torch.manual_seed(0)
    cfg = build_cfg(
        CONFIG,
        ["MODEL.DEVICE", "cpu", "MODEL.VIT.IMG_SIZE", arguments.size, "MODEL.EVENTFUL.PYRAMID.ENABLED", True],
    )
    with config_errors():
        model = build_model(cfg).eval()
    side = arguments.size // cfg.MODEL.VIT.PATCH_SIZE
    print(f"{arguments.size} px, {torch.get_num_threads()} threads, medians of {arguments.rounds}\n")
    with torch.no_grad():
        print(time_patterns(model, side, arguments.rounds) + "\n", flush=True)
        print(time_parts(model, side, arguments.rounds) + "\n", flush=True)
        print(time_units(cfg.MODEL.SIMPLE_PYRAMID.OUT_CHANNELS, arguments.rounds), flush=True)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("--size", type=whole_number(1), default=1024, help="side of a frame in pixels (default: 1024)")
    parser.add_argument("--rounds", type=whole_number(1), default=5, help="timed calls of each (default: 5)")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(words)
    return run(lambda: execute(arguments), arguments)
