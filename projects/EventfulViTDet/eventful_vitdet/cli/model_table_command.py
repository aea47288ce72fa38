"""Parameters and operations of Detectron2's published ViTDet models, from their configurations.

    python tools/model_table.py
    python tools/model_table.py --budgets 512 coco/mask_rcnn_vitdet_b.yaml

Prints the markdown table of docs/models.md: what a frame costs in GFlops (10^9 MACs), dense, and after the first frame
with r tokens per gate.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..known_models import KNOWN_MODELS
from .arguments import command_parser, whole_number
from .console import run

MODELS = [model.name for model in KNOWN_MODELS if not model.file]
"""Those that are published; the others are the repository's own."""
BUDGETS = [256, 512, 1024]


def execute(arguments: argparse.Namespace) -> None:
    from ..benchmark.model_costs import format_model_costs, model_costs
    from ..config_files import build_cfg

    costs = {
        name.removesuffix(".yaml"): model_costs(build_cfg(name), arguments.budgets)
        for name in arguments.models or MODELS
    }
    print(format_model_costs(costs, arguments.budgets))


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("models", nargs="*", metavar="CONFIG", help="configurations (default: all published models)")
    parser.add_argument(
        "--budgets", nargs="+", type=whole_number(1), default=BUDGETS, metavar="R", help="tokens per gate and frame"
    )
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(words)
    return run(lambda: execute(arguments), arguments)
