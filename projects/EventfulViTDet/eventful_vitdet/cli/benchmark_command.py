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

from ..errors import ConfigError
from .arguments import command_parser, parse_with_pairs, whole_number
from .console import run

CONFIG = "imagenet_vid/vitdet_b_1024_eventful_r512.yaml"  # by its name below configs/
SIZES = [672, 1024]
BUDGETS = [128, 256, 512, 1024]
PARTS = (4, 8, 16)
"""Budgets of a Vision Transformer, as parts of its tokens."""


def execute(arguments: argparse.Namespace) -> None:
    from eventful_vit.attention.modes import ATTENTION_MODES

    from ..benchmark import format_benchmark, format_profile, plot_benchmark
    from ..benchmark.busy_machine import busy_processes
    from ..benchmark.variants import DTYPES
    from ..files import write_atomically, write_json
    from .command_line import check_output_dir

    check_words("--modes", arguments.modes, list(ATTENTION_MODES))
    check_words("--dtypes", arguments.dtypes, DTYPES)
    check_output_dir(arguments.output)
    results, texts = [], []
    for size in arguments.sizes or ([None] if arguments.model else SIZES):
        with busy_processes(arguments.busy):
            results.append(measure_vit(arguments, size) if arguments.model else measure_detector(arguments, size))
        results[-1]["busy_processes"] = arguments.busy
        texts.append(format_benchmark(results[-1]))
        if arguments.profile:
            texts.append(format_profile(results[-1]))
        print("\n" + "\n\n".join(texts[-2 if arguments.profile else -1 :]) + "\n", flush=True)
        write_json(str(Path(arguments.output, "benchmark.json")), results)
        write_atomically(str(Path(arguments.output, "benchmark.md")), "\n\n".join(texts) + "\n")
        plot_benchmark(results, str(Path(arguments.output, "benchmark.png")))


def measure_detector(arguments: argparse.Namespace, size: int) -> dict:
    """The benchmark of the configuration's detector."""
    from ..benchmark import benchmark, make_variants
    from ..config_files import build_cfg

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
    """The benchmark of `--model`."""
    import torch

    from ..benchmark import compare, load_timm, make_variants, moving_video, vit_subject
    from ..config_files import build_cfg

    vit, size = load_timm(arguments.model, size)
    budgets = arguments.budgets or [vit.patch_embed.num_patches // part for part in PARTS]
    variants = make_variants(arguments.modes, arguments.dtypes, budgets)
    device = torch.device(build_cfg("", arguments.opts).MODEL.DEVICE)
    subject = vit_subject(arguments.model, vit, size, variants, device)
    return compare(subject, variants, arguments.rounds, moving_video(size))


def check_words(option: str, words: Sequence[str], known: Sequence[str]) -> None:
    """Raise ConfigError for a word that an option does not know."""
    for word in words:
        if word not in known:
            raise ConfigError(f"{option}: {word!r} is unknown; choose from {', '.join(known)}")


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("--config-file", default=CONFIG, metavar="FILE", help="the detector (default: ViTDet-B)")
    pixels, tokens = whole_number(1), whole_number(0)
    parser.add_argument("--model", metavar="timm:NAME", help="a Vision Transformer of timm in place of the detector")
    parser.add_argument(
        "--sizes", type=pixels, nargs="+", metavar="PIXELS", help="frame sides (default: 672 1024; for --model its own)"
    )
    parser.add_argument(
        "--budgets",
        type=tokens,
        nargs="+",
        metavar="R",
        help="tokens per gate (default: 128 256 512 1024; for --model a quarter, eighth and sixteenth of its tokens)",
    )
    parser.add_argument("--modes", nargs="+", default=["exact"], help="attention modes (default: exact)")
    parser.add_argument("--dtypes", nargs="+", default=["float32"], help="types of the backbone (default: float32)")
    parser.add_argument("--pyramid", action="store_true", help="also time exact with the eventful pyramid")
    parser.add_argument("--library", action="store_true", help="also time dense with scaled_dot_product_attention")
    parser.add_argument("--profile", action="store_true", help="also time the parts of one frame of every variant")
    parser.add_argument("--rounds", type=whole_number(1), default=5, help="timed frames of each variant (default: 5)")
    parser.add_argument(
        "--busy", type=whole_number(0), default=0, metavar="N", help="run N processes beside it that use a core each"
    )
    parser.add_argument("--output", default="output/benchmark", help="folder for benchmark.{json,md,png}")
    arguments = parse_with_pairs(parser, words)
    for option in ("pyramid", "library", "profile") if arguments.model else ():
        if getattr(arguments, option):
            parser.error(f"--{option} is for detectors, not for --model")
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(words)
    return run(lambda: execute(arguments), arguments)
