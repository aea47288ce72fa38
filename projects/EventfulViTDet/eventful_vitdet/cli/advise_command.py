"""Find the budget that reaches a target in milliseconds: measure several on this machine and a video, recommend one.

    python tools/advise.py street.mp4 --target-ms 100
    python tools/advise.py street.mp4 --target-ms 100 --model coco/mask_rcnn_vitdet_l --min-agreement 95
    python tools/advise.py --config-file configs/airborne_vid/vitdet_small.yaml --input video.mp4 --target-ms 40 \\
        --weights weights/airborne_vitdet_small.safetensors --budgets 64 128 256 --output advice.json

The dense model and all budgets run on the same frames, in turn. Ctrl-C ends the measurement and shows what there is.
See docs/runtime-control.md.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..budget_words import CALIBRATED, DENSE
from .arguments import (
    add_inputs,
    add_model,
    call_of,
    command_parser,
    model_pairs,
    percent,
    positive,
    take_budgets,
    take_one_input,
    whole_number,
)
from .console import run

if TYPE_CHECKING:
    from ..budget_advice import Candidate, MeasuredBudget

FRAMES = 30


def execute(arguments: argparse.Namespace) -> None:
    from ..budget_advice import advice_as_json, describe_noise, format_measured, measure_budgets, recommend, ways_out
    from ..config_files import build_cfg
    from ..files import check_can_be_written, write_json
    from ..predictor import load_detector
    from ..video import open_source

    # What may be wrong is found out before the model is made, or even fetched.
    if arguments.output:
        check_can_be_written(arguments.output, "--output")
    cfg = build_cfg(arguments.config_file, model_pairs(arguments))
    source = open_source(arguments.input)
    model = load_detector(cfg)
    measured = measure_budgets(
        cfg, model, source, budgets=arguments.budgets, frames=arguments.frames, start=arguments.start
    )
    if measured.interrupted:
        print(f"interrupted after {measured.frames} of {arguments.frames} frames")
    print(f"\n{format_measured(measured)}\n")
    if (noise := describe_noise(measured)) is not None:
        print(f"note: {noise}")
    advice = recommend(measured, arguments.target_ms, arguments.min_agreement)
    command = None if advice.budget is None else command_for(arguments, advice.budget, cfg.MODEL.EVENTFUL.ENABLED)
    print(f"recommendation: {advice.reason}" + (f": {command}" if command else ""))
    if advice.budget is None:
        for candidate in ways_out(measured, cfg, arguments.config_file, arguments.target_ms):
            print(f"to try: {candidate.what}: {command_to_measure(arguments, candidate)}")
    if arguments.output:
        result = {"target_ms": arguments.target_ms, "min_agreement": arguments.min_agreement}
        write_json(arguments.output, {**result, **advice_as_json(measured, advice, command)})
        print(f"json: {arguments.output}")
    if measured.interrupted:
        raise KeyboardInterrupt


def command_for(arguments: argparse.Namespace, budget: MeasuredBudget, enabled: bool) -> str:
    """The command that detects with a budget. `enabled`: whether the configuration is eventful by itself."""
    words = [arguments.input, *_model_words(arguments)]
    pairs = list(arguments.opts)
    if budget.r is not None:
        words += ["--budget", str(budget.r)]
    if enabled != (budget.r is not None):
        pairs += ["MODEL.EVENTFUL.ENABLED", str(not enabled)]
    return _join(call_of("visualize_video"), [words[0], *pairs, *words[1:]])


def command_to_measure(arguments: argparse.Namespace, candidate: Candidate) -> str:
    """This command for something else."""
    words = [f"--target-ms={arguments.target_ms:g}"]
    if arguments.min_agreement:
        words.append(f"--min-agreement={arguments.min_agreement:g}")
    if candidate.budget is not None:
        words += ["--budgets", str(candidate.budget)]
    model = ["--model", candidate.model] if candidate.model else _model_words(arguments)
    pairs = [*arguments.opts, *candidate.pairs]
    return _join(call_of("advise"), [arguments.input, *pairs, *model, *words])


def _model_words(arguments: argparse.Namespace) -> list[str]:
    words = ["--model", arguments.config_file]
    return words + (["--weights", arguments.weights] if arguments.weights else [])


def _join(call: str, words: Sequence[str]) -> str:
    return f"{call} {shlex.join(words)}"


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    option = parser.add_argument
    add_inputs(parser, "video file, folder or pattern, address, or camera number", several=False)
    add_model(parser)
    option("--target-ms", type=positive, required=True, metavar="MS", help="target time of a frame in milliseconds")
    least = "percent; budgets that agree less with the dense model are not recommended (default: 0)"
    option("--min-agreement", type=percent, default=0.0, metavar="PERCENT", help=least)
    budgets = "tokens per gate to measure (default: 1/2, 1/4, 1/8 and 1/16 of the frame's)"
    option("--budgets", metavar="R ...", help=budgets)
    option("--frames", type=whole_number(4), default=FRAMES, metavar="N", help=f"frames to measure (default: {FRAMES})")
    option("--start", type=whole_number(0), default=0, metavar="N", help="number of the first frame (default: 0)")
    option("--output", metavar="FILE.json", help="write all measurements to this file")
    words, budgets = take_budgets(parser, list(sys.argv[1:] if words is None else words))
    arguments = parser.parse_intermixed_args(words)
    if arguments.budgets is not None:
        parser.error("write --budgets in full and once, followed by its numbers: --budgets 64 128")
    if CALIBRATED in budgets:
        parser.error("--budgets: calibrated budgets are not measured here, only whole numbers of tokens")
    arguments.budgets = [int(budget) for budget in budgets if budget != DENSE]  # that one is always measured
    take_one_input(parser, arguments)
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(words)
    return run(lambda: execute(arguments), arguments)
