"""The demonstration of action recognition: a committed tiny ViViT on rendered actions, dense and at four budgets.

    python tools/demo_actions.py

Renders the test videos, evaluates the same weights at every budget, and writes a table and a plot to
output/demo_actions. An interrupted run continues with the same command.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from .arguments import add_pairs, command_parser
from .console import run

CONFIG = "configs/synthetic_actions/vivit_tiny.yaml"
WEIGHTS = "weights/synthetic_actions_vivit_tiny.safetensors"
BUDGETS = ["dense", "32", "16", "8", "4"]
TITLE = "Rendered actions, tiny ViViT"


def execute(arguments: argparse.Namespace) -> None:
    from ..actions.accuracy_plot import write_accuracy_plot
    from ..actions.evaluate_actions import evaluate_action_budgets
    from ..checkpoint import VideoCheckpointer
    from ..config_files import build_cfg
    from ..training import VideoTrainer
    from .checkout import checkout_file, render_demo_actions
    from .command_line import check_output_dir

    options = ["MODEL.WEIGHTS", str(checkout_file(WEIGHTS)), "OUTPUT_DIR", "output/demo_actions", *arguments.opts]
    cfg = build_cfg(str(checkout_file(CONFIG)), options)
    check_output_dir(cfg.OUTPUT_DIR)
    render_demo_actions()
    model = VideoTrainer.build_model(cfg).eval()
    VideoCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    [results] = evaluate_action_budgets(cfg, model, BUDGETS, restart=arguments.restart).values()
    inference = Path(cfg.OUTPUT_DIR, "inference")
    write_accuracy_plot(str(inference / "tradeoff.svg"), results, TITLE)
    print(f"table: {inference / 'budgets.md'}")
    print(f"plot: {inference / 'tradeoff.svg'}")


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = command_parser(__doc__)
    parser.add_argument("--restart", action="store_true", help="evaluate all clips, also those that are finished")
    add_pairs(parser)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse(words)
    return run(lambda: execute(arguments), arguments)
