"""Train or evaluate a video detector.

    python tools/train_net.py --config-file configs/airborne_vid/vitdet_small.yaml
    python tools/train_net.py --config-file configs/airborne_vid/vitdet_small.yaml --eval-only \\
        --budgets dense 64 128 256 MODEL.WEIGHTS weights/airborne_vitdet_small.safetensors
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from ..checkpoint import VideoCheckpointer
from ..evaluation import evaluate_budgets, evaluate_once
from ..training import VideoTrainer
from .command_line import argument_parser, parse_arguments, run, setup
from .process_launch import launch_main, was_restarted

logger = logging.getLogger("eventful_vitdet")


def execute(args: argparse.Namespace) -> None:
    cfg = setup(args)
    again = was_restarted()
    if not args.eval_only:
        trainer = VideoTrainer(cfg)
        trainer.resume_or_load(resume=args.resume or again)
        trainer.train()
        return
    model = VideoTrainer.build_model(cfg)
    checkpointer = VideoCheckpointer(model, cfg.OUTPUT_DIR)
    resumed = args.resume and checkpointer.has_checkpoint()
    checkpointer.weights_set = "" if resumed else cfg.MODEL.WEIGHTS_SET
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    if not (cfg.MODEL.WEIGHTS or resumed):
        logger.warning("MODEL.WEIGHTS is empty: what is evaluated are random weights")
    restart = args.restart and not again  # what was finished before the failure is of this command
    if args.budgets:
        evaluate_budgets(cfg, model, args.budgets, restart=restart)
    else:
        evaluate_once(cfg, model, restart=restart)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse_arguments(argument_parser(), words)
    return run(lambda: launch_main(execute, arguments))
