"""Training as Detectron2 users know it: DefaultTrainer with this project's data, optimiser and evaluation."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, SimpleTrainer, hooks
from detectron2.utils.comm import is_main_process
from detectron2.utils.events import get_event_storage
from eventful_vit.gated_training import TrainingGates
from torch import Tensor, nn

from .checkpoint import VideoCheckpointer
from .config import config_errors
from .data import build_video_train_loader
from .errors import ConfigError, TrainingError, is_for_user
from .evaluation import evaluate_once, load_test_frames
from .evaluation.tube_results import check_tubes
from .muon import has_bfloat16_instructions
from .optimizer import build_optimizer

logger = logging.getLogger(__name__)


class VideoTrainer(DefaultTrainer):
    """Trains a VideoRCNN as a plain detector, on single frames, and evaluates it on video."""

    def __init__(self, cfg: CfgNode) -> None:
        self.check(cfg)
        with config_errors():
            super().__init__(cfg)
        if cfg.SOLVER.AMP.ENABLED and cfg.MODEL.DEVICE == "cpu":
            self._trainer = make_cpu_trainer(self._trainer)

    @classmethod
    def check(cls, cfg: CfgNode) -> None:
        """Find what would end a training only after its first iterations, or at the evaluation after its last."""
        check_training(cfg)

    def build_hooks(self) -> list[HookBase]:
        # DefaultTrainer makes its checkpointer just before the hooks that use it.
        self.checkpointer = VideoCheckpointer(
            self.model,
            self.cfg.OUTPUT_DIR,
            complete=False,  # other weights may bring the backbone only
            reinitialize=self.cfg.MODEL.REINITIALIZE,
            weights_set=self.cfg.MODEL.WEIGHTS_SET,
            trainer=weakref.proxy(self),
        )
        built = [FirstIteration(), *super().build_hooks()]
        if self.cfg.SOLVER.EMA_DECAY != 0:
            built = self._with_weight_average(built)
        return built

    def _with_weight_average(self, built: list[HookBase]) -> list[HookBase]:
        """Keep the average before anything that saves or evaluates, and evaluate it instead of the raw weights."""
        average = WeightAverage(self.model, self.cfg.SOLVER.EMA_DECAY, self.cfg.OUTPUT_DIR)

        def evaluate_average() -> dict[str, Any]:
            with average.applied():
                return self.test(self.cfg, self.model)

        swapped = [
            hooks.EvalHook(self.cfg.TEST.EVAL_PERIOD, evaluate_average) if isinstance(hook, hooks.EvalHook) else hook
            for hook in built
        ]
        return [average, *swapped]

    def resume_or_load(self, resume: bool = True) -> None:
        """Resume after OUTPUT_DIR's last whole checkpoint if asked to and possible, else begin with MODEL.WEIGHTS."""
        super().resume_or_load(resume)
        resumed_from = self.checkpointer.resumed_from
        if resume and resumed_from is None:
            logger.warning("--resume: no checkpoint in %s, training begins with MODEL.WEIGHTS", self.cfg.OUTPUT_DIR)
        elif resumed_from is not None and "trainer" not in self.checkpointer.stored:
            logger.warning(
                "--resume: %s holds weights only; optimiser, schedule, moving average and iterations start over",
                resumed_from,
            )
            self.start_iter = 0
        elif resumed_from is not None:
            self._trainer.data_loader.continue_after(self.start_iter * self.cfg.SOLVER.IMS_PER_BATCH)

    def train(self) -> Any:
        with user_errors_without_traceback():
            try:
                return super().train()
            except FloatingPointError as error:  # Detectron2's name for a loss that is no number
                hint = "" if "SOLVER" in str(error) else "; lower SOLVER.BASE_LR, or look at the data"
                raise TrainingError(f"{error}{hint}") from error

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        with config_errors():
            return super().build_model(cfg)

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode) -> Any:
        return build_video_train_loader(cfg)

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators: Any = None) -> dict[str, Any]:
        """Evaluate on cfg.DATASETS.TEST with `evaluate`; nothing where that is empty."""
        return cls.evaluate(cfg, unwrap(model)) if cfg.DATASETS.TEST else {}

    @classmethod
    def evaluate(cls, cfg: CfgNode, model: nn.Module) -> dict[str, Any]:
        """Evaluate with the streaming evaluator, from the start: the weights are others each time."""
        return evaluate_once(cfg, model, restart=True)


def check_training(cfg: CfgNode) -> None:
    """Raise an error for settings and data sets that a detector's training cannot have."""
    check_solver(cfg)
    check_tubes(cfg)
    check_earlier_frames(cfg)
    for name in cfg.DATASETS.TEST:
        load_test_frames(cfg, name)


def check_solver(cfg: CfgNode) -> None:
    """Raise ConfigError for numbers of iterations that cannot be."""
    for key in ("MAX_ITER", "CHECKPOINT_PERIOD"):
        if cfg.SOLVER[key] < 1:
            raise ConfigError(f"SOLVER.{key} must be 1 or larger, found {cfg.SOLVER[key]}")


def check_earlier_frames(cfg: CfgNode) -> None:
    """Raise ConfigError where training with gates on is asked for and cannot be."""
    eventful, frames, key = cfg.MODEL.EVENTFUL, cfg.DATALOADER.EARLIER_FRAMES, "DATALOADER.EARLIER_FRAMES"
    if frames < 0:
        raise ConfigError(f"{key} must be 0 or larger, found {frames}")
    if frames and not eventful.ENABLED:
        raise ConfigError(f"{key} = {frames} trains with gates on, but MODEL.EVENTFUL.ENABLED is False")
    if frames and eventful.ATTENTION not in TrainingGates.ATTENTION:
        raise ConfigError(
            f"{key} = {frames}: training with gates on is for MODEL.EVENTFUL.ATTENTION "
            f"{' or '.join(TrainingGates.ATTENTION)}, not {eventful.ATTENTION}"
        )
    if frames and cfg.MODEL.VIT.DROP_PATH_RATE:
        raise ConfigError(
            f"{key} = {frames}: training with gates on is without stochastic depth, which would change what passes the "
            f"gates; set MODEL.VIT.DROP_PATH_RATE 0.0, found {cfg.MODEL.VIT.DROP_PATH_RATE}"
        )


@contextmanager
def user_errors_without_traceback() -> Iterator[None]:
    """Detectron2's training loop logs every exception with its traceback; errors of the user need only their message,
    which is printed where the exception is caught."""

    def is_defect(record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not (is_for_user(error) or isinstance(error, FloatingPointError))

    loop_logger = logging.getLogger("detectron2.engine.train_loop")
    loop_logger.addFilter(is_defect)
    try:
        yield
    finally:
        loop_logger.removeFilter(is_defect)


class FirstIteration(HookBase):
    """Tells of the first iteration as soon as it is done. Detectron2's own line comes with the 20th, which may be many
    minutes later."""

    def before_step(self) -> None:
        self._began = time.perf_counter()

    def after_step(self) -> None:
        loss = get_event_storage().latest().get("total_loss")
        if self.trainer.iter == self.trainer.start_iter and loss is not None and is_main_process():
            seconds = time.perf_counter() - self._began
            message = "first iteration of this run: total_loss %.4g, %.1f seconds with what is done only once"
            logger.info(message, loss[0], seconds)


def make_cpu_trainer(trainer: SimpleTrainer) -> SimpleTrainer:
    """What trains with mixed precision on this CPU: in float32 where bfloat16 would be several times slower."""
    parts = trainer.model, trainer.data_loader, trainer.optimizer
    if has_bfloat16_instructions():
        return Bfloat16Trainer(*parts)
    logger.warning("SOLVER.AMP.ENABLED: this processor has no instructions for bfloat16, so training runs in float32")
    return SimpleTrainer(*parts)


class Bfloat16Trainer(SimpleTrainer):
    """Mixed precision on a CPU: Detectron2's AMPTrainer scales losses for float16 and needs a GPU."""

    def run_step(self) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            super().run_step()


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside of DistributedDataParallel, or the model itself."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


class WeightAverage(HookBase):
    """An exponential moving average of the weights, which evaluations during training use.

    The average warms up: after n iterations its decay is at most (1 + n) / (10 + n), so that early weights fade fast.
    As a hook's state it is stored in every checkpoint, and alone as `model_ema.pth` when training is complete.
    """

    def __init__(self, model: nn.Module, decay: float, output_dir: str) -> None:
        if not 0.0 < decay < 1.0:
            raise ConfigError(f"SOLVER.EMA_DECAY must lie between 0 and 1, got {decay}")
        self.model = unwrap(model)
        self.decay = decay
        self.output_dir = output_dir
        self.updates = 0
        self.average = self._copy()

    def _copy(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def before_train(self) -> None:
        # The weights may have been loaded after this hook was made.
        if self.updates == 0:
            self.average = self._copy()

    @torch.no_grad()
    def after_step(self) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:
                self.average[name].copy_(value)

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:  # not when an error ended the training
            with self.applied():
                saver = VideoCheckpointer(self.model, self.output_dir)
                saver.save("model_ema", tag=False)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model have the average as its weights for a while."""
        raw = self._copy()
        self.model.load_state_dict(self.average)
        try:
            yield
        finally:
            self.model.load_state_dict(raw)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "average": self.average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        for name, value in state["average"].items():
            self.average[name].copy_(value)
