"""Train or evaluate a video detector, or a classifier of clips.

    python tools/train_net.py --config-file configs/airborne_vid/vitdet_small.yaml
    python tools/train_net.py --config-file configs/airborne_vid/vitdet_small.yaml --eval-only \\
        --budgets dense 64 128 256 MODEL.WEIGHTS weights/airborne_vitdet_small.safetensors
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence

from detectron2.config import CfgNode

from ..actions.action_training import ActionTrainer
from ..actions.evaluate_actions import evaluate_action_budgets, evaluate_actions
from ..checkpoint import VideoCheckpointer
from ..evaluation import evaluate_budgets, evaluate_once
from ..modeling import VideoClassifier
from ..training import VideoTrainer
from .command_line import argument_parser, launch_main, parse_arguments, run, setup

logger = logging.getLogger("eventful_vitdet")


def execute(args: argparse.Namespace) -> None:
    cfg = setup(args)
    if not args.eval_only:
        trainer = (ActionTrainer if cfg.MODEL.META_ARCHITECTURE == "VideoClassifier" else VideoTrainer)(cfg)
        trainer.resume_or_load(resume=args.resume)
        trainer.train()
        return
    model = VideoTrainer.build_model(cfg)
    checkpointer = VideoCheckpointer(model, cfg.OUTPUT_DIR)
    resumed = args.resume and checkpointer.has_checkpoint()
    checkpointer.weights_set = "" if resumed else cfg.MODEL.WEIGHTS_SET
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    if not (cfg.MODEL.WEIGHTS or resumed):
        logger.warning("MODEL.WEIGHTS is empty: what is evaluated are random weights")
    if isinstance(model, VideoClassifier):
        evaluate_classifier(cfg, model, args.budgets, restart=args.restart)
    elif args.budgets:
        evaluate_budgets(cfg, model, args.budgets, restart=args.restart)
    else:
        evaluate_once(cfg, model, restart=args.restart)


def evaluate_classifier(cfg: CfgNode, model: VideoClassifier, budgets: Sequence[str], *, restart: bool) -> None:
    """Evaluate action recognition."""
    if budgets:
        evaluate_action_budgets(cfg, model, budgets, restart=restart)
    else:
        evaluate_actions(cfg, model, restart=restart)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse_arguments(argument_parser(), words)
    return run(lambda: launch_main(execute, arguments))
