"""Time ViTDet-B or a ViT of timm per frame, dense against eventful, side by side in one process.

python tools/benchmark.py
python tools/benchmark.py --modes exact full tokenwise --dtypes float32 bfloat16 --pyramid --library --profile
python tools/benchmark.py --sizes 672 --budgets 128 256 --rounds 10
python tools/benchmark.py --config-file configs/airborne_vid/vitdet_small.yaml --sizes 512 --budgets 64 128 256
python tools/benchmark.py --model timm:vit_base_patch14_dinov2 --sizes 518
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from ..benchmark import (
    benchmark,
    compare,
    format_benchmark,
    format_profile,
    load_timm,
    make_variants,
    moving_video,
    plot_benchmark,
    vit_subject,
)
from ..benchmark.variants import DTYPES, MODES
from ..files import write_atomically, write_json
from .command_line import build_cfg, check_output_dir, command_parser, parse_with_pairs, run

CONFIG = "imagenet_vid/vitdet_b_1024_eventful_r512.yaml"  # by its name below configs/
SIZES = [672, 1024]
BUDGETS = [128, 256, 512, 1024]
PARTS = (4, 8, 16)
"""Budgets of a Vision Transformer, as parts of its tokens."""


def execute(arguments: argparse.Namespace) -> None:
    check_output_dir(arguments.output)
    results, texts = [], []
    for size in arguments.sizes or ([None] if arguments.model else SIZES):
        results.append(measure_vit(arguments, size) if arguments.model else measure_detector(arguments, size))
        texts.append(format_benchmark(results[-1]))
        if arguments.profile:
            texts.append(format_profile(results[-1]))
        print("\n" + "\n\n".join(texts[-2 if arguments.profile else -1 :]) + "\n", flush=True)
        write_json(str(Path(arguments.output, "benchmark.json")), results)
        write_atomically(str(Path(arguments.output, "benchmark.md")), "\n\n".join(texts) + "\n")
        plot_benchmark(results, str(Path(arguments.output, "benchmark.png")))


def measure_detector(arguments: argparse.Namespace, size: int) -> dict:
    # Square frames of this side, whatever shape the configuration was made for.
    cfg = build_cfg(arguments.config_file, ["MODEL.VIT.IMG_SIZE", size, "MODEL.VIT.IMG_SIZE_HW", "()", *arguments.opts])
    variants = make_variants(
        arguments.modes,
        arguments.dtypes,
        arguments.budgets or BUDGETS,
        pyramid=arguments.pyramid,
        library=arguments.library,
    )
    return benchmark(cfg, variants, arguments.rounds, arguments.profile)


def measure_vit(arguments: argparse.Namespace, size: int | None) -> dict:
    vit, size = load_timm(arguments.model, size)
    budgets = arguments.budgets or [vit.patch_embed.num_patches // part for part in PARTS]
    variants = make_variants(arguments.modes, arguments.dtypes, budgets)
    device = torch.device(build_cfg("", arguments.opts).MODEL.DEVICE)
    subject = vit_subject(arguments.model, vit, size, variants, device)
    return compare(subject, variants, arguments.rounds, moving_video(size))


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("--config-file", default=CONFIG, metavar="FILE", help="the detector (default: ViTDet-B)")
    parser.add_argument("--model", metavar="timm:NAME", help="a Vision Transformer of timm in place of the detector")
    parser.add_argument(
        "--sizes", type=int, nargs="+", metavar="PIXELS", help="sides of the frames (default: 672 1024; a model's own)"
    )
    parser.add_argument(
        "--budgets",
        type=int,
        nargs="+",
        metavar="R",
        help="tokens per gate (default: 128 256 512 1024; of a model a quarter, eighth and sixteenth of its tokens)",
    )
    parser.add_argument("--modes", nargs="+", default=["exact"], choices=MODES, help="attention modes (default: exact)")
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=DTYPES, help="types of the backbone")
    parser.add_argument("--pyramid", action="store_true", help="exact also with the eventful pyramid")
    parser.add_argument("--library", action="store_true", help="dense also by scaled_dot_product_attention")
    parser.add_argument("--profile", action="store_true", help="also the parts of one frame of every variant")
    parser.add_argument("--rounds", type=int, default=5, help="timed frames of each variant (default: 5)")
    parser.add_argument("--output", default="output/benchmark", help="folder for benchmark.{json,md,png}")
    arguments = parse_with_pairs(parser, words)
    for option in ("pyramid", "library", "profile") if arguments.model else ():
        if getattr(arguments, option):
            parser.error(f"--{option} is for detectors, not for --model")
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(words)
    return run(lambda: execute(arguments))
