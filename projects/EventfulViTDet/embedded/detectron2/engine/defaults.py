"""Command line, setup and trainer that most projects need as they are."""

from __future__ import annotations

import argparse
import logging
import os
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import CommonMetricPrinter, EventWriter, JSONWriter, TensorboardXWriter
from detectron2.utils.logger import setup_logger
from torch.nn.parallel import DistributedDataParallel

from . import hooks
from .train_loop import AMPTrainer, HookBase, SimpleTrainer, TrainerBase


def default_argument_parser() -> argparse.ArgumentParser:
    """The options every training script has, and ``opts``: KEY VALUE pairs at the end for the config."""
    parser = argparse.ArgumentParser(epilog="example: --config-file FILE SOLVER.BASE_LR 0.001")
    parser.add_argument("--config-file", default="", metavar="FILE", help="yaml file with settings")
    parser.add_argument("--resume", action="store_true", help="continue after OUTPUT_DIR's last checkpoint")
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS instead of training")
    parser.add_argument("--num-gpus", type=int, default=1, help="processes per machine, one per GPU")
    parser.add_argument("--num-machines", type=int, default=1, help="number of machines")
    parser.add_argument("--machine-rank", type=int, default=0, help="number of this machine, from 0")
    # The same port in every run of a user: a forgotten process shows itself by occupying it.
    user = os.getuid() if hasattr(os, "getuid") else 1
    url = f"tcp://127.0.0.1:{2**15 + 2**14 + user % 2**14}"
    parser.add_argument("--dist-url", default=url, help="where the processes of one run meet, or 'auto'")
    parser.add_argument("opts", nargs=argparse.REMAINDER, default=None, help="KEY VALUE pairs for the config")
    return parser


def default_setup(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Prepare OUTPUT_DIR, logging and random numbers; log environment and settings; write config.yaml."""
    rank, output_dir = comm.get_rank(), cfg.OUTPUT_DIR
    os.makedirs(output_dir, exist_ok=True)
    setup_logger(output_dir, distributed_rank=rank, name="fvcore")
    logger = setup_logger(output_dir, distributed_rank=rank)
    if comm.is_main_process():
        with open(os.path.join(output_dir, "config.yaml"), "w") as file:
            file.write(cfg.dump())
    logger.info("Process %d of %d, arguments: %s", rank, comm.get_world_size(), args)
    logger.info("Settings, also in %s/config.yaml:\n%s", output_dir, cfg.dump())
    seed_all_rng(cfg.SEED + rank if cfg.SEED >= 0 else None)
    if not args.eval_only:
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK


class DefaultTrainer(TrainerBase):
    """Builds everything from a config, trains, logs, evaluates, saves and resumes. Subclasses define the
    class methods."""

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        if comm.get_world_size() > 1:
            devices = [comm.get_local_rank()] if next(model.parameters()).is_cuda else None
            model = DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)
        trainer_class = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
        self._trainer = trainer_class(model, data_loader, optimizer)
        self.model, self.optimizer = model, optimizer
        self.scheduler = build_lr_scheduler(cfg, optimizer)
        self.checkpointer = DetectionCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue after OUTPUT_DIR's last checkpoint if asked to and possible; else load MODEL.WEIGHTS."""
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if resume and self.checkpointer.has_checkpoint():
            self.start_iter = self.iter + 1  # the checkpoint names the iteration that was done last

    def build_hooks(self) -> list[HookBase]:
        """Timer, schedule, checkpoints, evaluation, writers; evaluation comes after saving, so that a failing
        one loses no training, and writers come last, so that they see its results."""
        built = [hooks.IterationTimer(), hooks.LRScheduler()]
        if comm.is_main_process():
            built.append(hooks.PeriodicCheckpointer(self.checkpointer, self.cfg.SOLVER.CHECKPOINT_PERIOD))
        built.append(hooks.EvalHook(self.cfg.TEST.EVAL_PERIOD, lambda: self.test(self.cfg, self.model)))
        if comm.is_main_process():
            built.append(hooks.PeriodicWriter(self.build_writers()))
        return built

    def build_writers(self) -> list[EventWriter]:
        """Log, ``metrics.json`` and TensorBoard's event file."""
        folder = self.cfg.OUTPUT_DIR
        os.makedirs(folder, exist_ok=True)
        metrics = JSONWriter(os.path.join(folder, "metrics.json"))
        return [CommonMetricPrinter(self.max_iter), metrics, TensorboardXWriter(folder)]

    def train(self) -> None:
        """Iterations from where `resume_or_load` left off up to SOLVER.MAX_ITER."""
        super().train(self.start_iter, self.max_iter)

    def run_step(self) -> None:
        self._trainer.iter = self.iter
        self._trainer.run_step()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "_trainer": self._trainer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._trainer.load_state_dict(state_dict["_trainer"])

    @classmethod
    def build_model(cls, cfg: CfgNode) -> torch.nn.Module:
        model = build_model(cfg)
        logging.getLogger(__name__).info("Model:\n%s", model)
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
        raise NotImplementedError(f"{cls.__name__} needs build_optimizer")

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Iterable[list]:
        raise NotImplementedError(f"{cls.__name__} needs build_train_loader")

    @classmethod
    def test(cls, cfg: CfgNode, model: torch.nn.Module) -> dict[str, Any]:
        """Evaluate ``model`` on DATASETS.TEST and return ``{task: {metric: value}}``."""
        raise NotImplementedError(f"{cls.__name__} needs test")
