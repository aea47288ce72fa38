"""Train or evaluate a video detector, or a classifier of clips.

    python tools/train_net.py --config-file configs/airborne_vid/vitdet_small.yaml
    python tools/train_net.py --config-file configs/airborne_vid/vitdet_small.yaml --eval-only \\
        --budgets dense 64 128 256 MODEL.WEIGHTS weights/airborne_vitdet_small.safetensors

`eventful-vitdet evaluate` is `eventful-vitdet train --eval-only`.
"""

from __future__ import annotations

import argparse
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import call_of, parse_training, training_parser
from .console import run

if TYPE_CHECKING:
    from detectron2.config import CfgNode

    from ..modeling import VideoClassifier

logger = logging.getLogger("eventful_vitdet")


def execute(args: argparse.Namespace) -> None:
    """Train or evaluate in this process, which may be one of several."""
    from .command_line import setup

    cfg = setup(args)
    if args.eval_only:
        evaluate(cfg, args)
    else:
        train(cfg, args)


def train(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Train a detector or a model of actions, or continue."""
    from ..actions.action_training import ActionTrainer
    from ..config import is_classifier
    from ..training import VideoTrainer
    from .process_launch import was_restarted

    again = was_restarted()  # all processes ask, whatever their arguments
    trainer = (ActionTrainer if is_classifier(cfg) else VideoTrainer)(cfg)
    trainer.resume_or_load(resume=args.resume or again)
    trainer.train()


def evaluate(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Evaluate the weights of a configuration, at one budget or several, or continue."""
    from ..checkpoint import VideoCheckpointer
    from ..config import is_classifier
    from ..evaluation import evaluate_budgets, evaluate_once
    from ..training import VideoTrainer
    from .process_launch import was_restarted

    again = was_restarted()
    model = VideoTrainer.build_model(cfg)
    checkpointer = VideoCheckpointer(model, cfg.OUTPUT_DIR, weights_set=cfg.MODEL.WEIGHTS_SET)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    if not (cfg.MODEL.WEIGHTS or checkpointer.resumed_from):
        logger.warning("MODEL.WEIGHTS is empty: random weights are evaluated")
    restart = args.restart and not again  # what was finished before the failure is of this command
    if is_classifier(cfg):
        evaluate_classifier(cfg, model, args.budgets, restart=restart)
        return
    if args.budgets:
        evaluate_budgets(cfg, model, args.budgets, restart=restart)
    else:
        evaluate_once(cfg, model, restart=restart)
    print_outputs(cfg, args)


def print_outputs(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Where an evaluation's table is, and the command that makes a report of it; by the first process."""
    from detectron2.utils import comm

    from ..evaluation.results import BUDGETS_TABLE, RESULTS_TABLE
    from ..evaluation.targets import result_folders

    if not comm.is_main_process():
        return
    given = {"--config-file": args.config_file, "--test-json": args.test_json, "--root": args.root}
    options = [word for option, value in given.items() if value for word in (option, value)]
    settings = dict(zip(args.opts[::2], args.opts[1::2]))
    dataset = [word for key, value in settings.items() if key.startswith("DATASETS.") for word in (key, value)]
    for folder in result_folders(cfg).values():
        print(f"table: {Path(folder, BUDGETS_TABLE if args.budgets else RESULTS_TABLE)}")
        print(f"report: {call_of('report')}", shlex.join([folder, *options, *dataset]))


def evaluate_classifier(cfg: CfgNode, model: VideoClassifier, budgets: Sequence[str], *, restart: bool) -> None:
    """Evaluate action recognition."""
    from ..actions.evaluate_actions import evaluate_action_budgets, evaluate_actions

    if budgets:
        evaluate_action_budgets(cfg, model, budgets, restart=restart)
    else:
        evaluate_actions(cfg, model, restart=restart)


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    arguments = parse_training(training_parser(__doc__), words)
    return run(lambda: launch(arguments), arguments)


def launch(arguments: argparse.Namespace) -> None:
    """Do the work in as many processes as the arguments ask for."""
    from .process_launch import launch_main

    launch_main(execute, arguments)
