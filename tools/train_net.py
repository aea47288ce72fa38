#!/usr/bin/env python3
"""Train or evaluate a video detector.

    python tools/train_net.py --config-file configs/airborne_vid/vitdet_small.yaml
    python tools/train_net.py --config-file configs/airborne_vid/vitdet_small.yaml --eval-only \\
        --budgets dense 64 128 256 MODEL.WEIGHTS weights/airborne_vitdet_small.safetensors
"""

import argparse
import logging
import sys

import eventful_vitdet  # noqa: F401  (makes detectron2 importable)
from eventful_vitdet.checkpoint import VideoCheckpointer
from eventful_vitdet.command_line import argument_parser, launch_main, parse_arguments, run, setup
from eventful_vitdet.evaluation import evaluate_budgets, evaluate_once
from eventful_vitdet.training import VideoTrainer

logger = logging.getLogger("eventful_vitdet")


def main(args: argparse.Namespace) -> None:
    cfg = setup(args)
    if not args.eval_only:
        trainer = VideoTrainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        trainer.train()
        return
    model = VideoTrainer.build_model(cfg)
    checkpointer = VideoCheckpointer(model, cfg.OUTPUT_DIR)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    if not (cfg.MODEL.WEIGHTS or (args.resume and checkpointer.has_checkpoint())):
        logger.warning("MODEL.WEIGHTS is empty: what is evaluated are random weights")
    if args.budgets:
        evaluate_budgets(cfg, model, args.budgets, restart=args.restart)
    else:
        evaluate_once(cfg, model, restart=args.restart)


if __name__ == "__main__":
    arguments = parse_arguments(argument_parser())
    sys.exit(run(lambda: launch_main(main, arguments)))
