"""Run ViTDet-B here and in the code of the paper's authors: outputs, operations, time and memory, side by side.

    git clone https://github.com/WISION-Lab/eventful-transformer
    python tools/compare_authors.py eventful-transformer
    python tools/compare_authors.py eventful-transformer --size 1024 --budgets 512 --modes full
    python tools/compare_authors.py eventful-transformer MODEL.WEIGHTS vitdet_b_vid.pth

Needs the authors' code and what it imports (matplotlib, torchvision). The backbones have the same weights, random ones
by default, and see the same made-up frames in turn. Prints a markdown table and writes it to --output, with all figures
in JSON.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .arguments import command_parser, take_pairs, whole_number
from .console import run

CONFIG = "imagenet_vid/vitdet_b_1024.yaml"  # by its name below configs/
TABLE_SIZE = 1024
"""Side in pixels that ViTDet-B's relative positions are made for."""
MODES = ["full", "query-key", "tokenwise"]
LEAST_FRAMES = 3


def execute(arguments: argparse.Namespace) -> None:
    from ..benchmark.authors_backbone import import_authors_code
    from ..benchmark.compare_authors import compare_authors, format_comparison, row_figures
    from ..config_files import build_cfg
    from ..files import write_atomically, write_json
    from .command_line import check_output_dir

    check_output_dir(arguments.output)
    code = import_authors_code(arguments.checkout)
    positions = ["MODEL.VIT.REL_POS_RESIZE", "matrix", "MODEL.VIT.REL_POS_IMG_SIZE", TABLE_SIZE]
    cfg = build_cfg(CONFIG, ["MODEL.VIT.IMG_SIZE", arguments.size, *positions, "MODEL.WEIGHTS", "", *arguments.opts])
    figures = []
    for row in compare_authors(code, cfg, arguments.modes, arguments.budgets, arguments.frames):
        figures.append(row_figures(row))
        table = format_comparison(figures)
        write_json(str(Path(arguments.output, "compare_authors.json")), figures)
        write_atomically(str(Path(arguments.output, "compare_authors.md")), table + "\n")
    print(table)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("checkout", metavar="CHECKOUT", help="the authors' repository; KEY VALUE pairs come last")
    parser.add_argument("--size", type=whole_number(1), default=672, help="side of a frame in pixels (default: 672)")
    parser.add_argument(
        "--budgets", type=whole_number(1), nargs="+", default=[256], metavar="R", help="tokens per gate (default: 256)"
    )
    parser.add_argument("--modes", nargs="+", default=MODES, choices=MODES, help="attention modes (default: all)")
    parser.add_argument(
        "--frames", type=whole_number(LEAST_FRAMES), default=9,
        help="frames of each row: a flush, one that is counted, the others timed (default: 9)",
    )  # fmt: skip
    parser.add_argument("--output", default="output/compare_authors", help="folder for compare_authors.{json,md}")
    words, pairs = take_pairs(sys.argv[1:] if words is None else words)
    arguments = parser.parse_args(words)
    arguments.opts = pairs
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(words)
    return run(lambda: execute(arguments), arguments)
