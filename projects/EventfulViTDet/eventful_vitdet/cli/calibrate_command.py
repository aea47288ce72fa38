"""Learn a budget for each gate from video without labels, and write a file of them.

    eventful-vitdet calibrate datasets/demo_vid/videos --config-file configs/demo/vitdet_tiny.yaml \\
        --weights weights/demo_vitdet_tiny.safetensors --like 16

Afterwards `MODEL.EVENTFUL.POLICY calibrated MODEL.EVENTFUL.POLICY_FILE FILE` runs the detector with these budgets.
KEY VALUE pairs of the configuration come last. See docs/calibration.md.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from .arguments import add_inputs, add_model, command_parser, model_pairs, positive, take_inputs, whole_number
from .console import run

if TYPE_CHECKING:
    from tqdm import tqdm

FILE = "calibrated.json"


def execute(arguments: argparse.Namespace) -> None:
    from eventful_vit import calibrate
    from tqdm import tqdm

    from ..calibration_frames import read_calibration_frames
    from ..config_files import build_cfg
    from ..data.input_preparation import InputPreparation
    from ..errors import ConfigError
    from ..files import check_can_be_written
    from ..policy_files import write_policy_file
    from ..predictor import load_detector
    from ..video import open_sources

    cfg = build_cfg(arguments.config_file, model_pairs(arguments))
    path = arguments.output or os.path.join(cfg.OUTPUT_DIR, FILE)
    check_can_be_written(path)
    sources = spread(open_sources(arguments.input), arguments.videos)
    cfg.MODEL.EVENTFUL.POLICY = "top-r"  # an older file of budgets may not be there any more
    model = load_detector(cfg)
    prepare = InputPreparation(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, cfg.INPUT.FORMAT)
    frames = read_calibration_frames(model, prepare, sources, arguments.frames, arguments.start)
    most = None if arguments.max_loss is None else arguments.max_loss / 100
    target = {"target_gflops": arguments.target_gflops, "like": arguments.like, "max_change": most}
    options = {"rounds": arguments.rounds, "shared": arguments.shared}
    with tqdm(desc="calibrating", unit="pass") as bar:
        try:
            found = calibrate(model.vit, frames, **target, **options, progress=partial(show, bar))
        except ValueError as error:
            raise ConfigError(f"{' '.join(arguments.input)}: {error}") from error
    write_policy_file(path, found)
    kind = "a shared budget of " if found.thresholds else ""
    print(
        f"{path}: {kind}{found.gflops:.4g} GFlops per later frame, features change by {100 * found.change:.3g} %; "
        f"{found.uniform} tokens in all gates: {100 * found.uniform_change:.3g} %"
    )


def show(bar: tqdm, done: int, total: int, found: str) -> None:
    """Move the bar to where `calibrate` is."""
    bar.total = total
    bar.set_postfix_str(found, refresh=bar.n == 0)
    bar.update(done - bar.n)


def spread(sources: Sequence, most: int) -> list:
    """At most so many of the sources, evenly spread."""
    number = min(most, len(sources))
    return [sources[place * len(sources) // number] for place in range(number)]


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    add_model(parser)
    add_inputs(parser, "videos, or folders of them")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument(
        "--target-gflops", type=positive, metavar="X", help="target: GFlops of the backbone per later frame"
    )
    target.add_argument("--like", type=whole_number(1), metavar="R", help="target: the GFlops of R tokens per gate")
    target.add_argument(
        "--max-loss", type=positive, metavar="PERCENT", help="target: fewest GFlops for this change of features"
    )
    parser.add_argument(
        "--shared", action="store_true", help="one budget that gates and frames share, by a threshold for each gate"
    )
    parser.add_argument("--frames", type=whole_number(2), default=16, help="frames of each video (default: 16)")
    parser.add_argument("--start", type=whole_number(0), default=0, help="number of the first frame (default: 0)")
    parser.add_argument("--videos", type=whole_number(1), default=4, help="most videos, run side by side (default: 4)")
    parser.add_argument("--rounds", type=whole_number(1), default=3, help="rounds of exchange (default: 3)")
    parser.add_argument("--output", metavar="FILE", help=f"file to write (default: OUTPUT_DIR/{FILE})")
    arguments = parser.parse_intermixed_args(words)
    take_inputs(parser, arguments)
    if arguments.shared and arguments.max_loss is not None:
        parser.error("--shared holds a number of operations: it needs --target-gflops or --like, not --max-loss")
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(words)
    return run(lambda: execute(arguments), arguments)
