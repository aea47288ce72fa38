#!/usr/bin/env python3
"""Time ViTDet-B per frame, dense against eventful, side by side in one process.

python tools/benchmark.py
python tools/benchmark.py --sizes 672 --budgets 128 256 --rounds 10 MODEL.EVENTFUL.ATTENTION tokenwise
"""

import argparse
import sys
from pathlib import Path

import eventful_vitdet  # noqa: F401  (makes detectron2 importable)
from eventful_vitdet.benchmark import benchmark, format_benchmark
from eventful_vitdet.command_line import build_cfg, check_output_dir, run
from eventful_vitdet.evaluation.results import write_json

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "imagenet_vid"


def main(arguments: argparse.Namespace) -> None:
    results = []
    check_output_dir(arguments.output)
    for size in arguments.sizes:
        cfg = build_cfg(
            str(CONFIGS / "vitdet_b_1024_eventful_r512.yaml"), ["MODEL.VIT.IMG_SIZE", size, *arguments.opts]
        )
        results.append(benchmark(cfg, arguments.budgets, arguments.rounds))
        print("\n" + format_benchmark(results[-1]) + "\n", flush=True)
        write_json(str(Path(arguments.output, "benchmark.json")), results)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[672, 1024], metavar="PIXELS", help="672 1024")
    parser.add_argument("--budgets", type=int, nargs="+", default=[128, 256, 512, 1024], metavar="R")
    parser.add_argument("--rounds", type=int, default=5, help="timed frames of each variant (default: 5)")
    parser.add_argument("--output", default="output/benchmark", help="folder for benchmark.json")
    parsed, options = parser.parse_known_args()
    if any(word.startswith("-") for word in options):
        parser.error(f"unknown option in {' '.join(options)}")
    parsed.opts = options
    sys.exit(run(lambda: main(parsed)))
