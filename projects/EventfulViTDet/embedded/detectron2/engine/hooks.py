"""The hooks of `DefaultTrainer`."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Callable

from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from fvcore.common.checkpoint import PeriodicCheckpointer as _FvcorePeriodicCheckpointer

from .train_loop import HookBase


class IterationTimer(HookBase):
    """Records "time", the seconds of each iteration, and logs the mean; the first iterations, which are slower, do
    not count. Belongs first among the hooks, so that it does not time the others."""

    WARMUP = 3

    def __init__(self) -> None:
        self._train_start = self._step_start = time.perf_counter()

    def before_step(self) -> None:
        self._step_start = time.perf_counter()

    def after_step(self) -> None:
        if self.trainer.iter - self.trainer.start_iter >= self.WARMUP:
            self.trainer.storage.put_scalar("time", time.perf_counter() - self._step_start)

    def after_train(self) -> None:
        times = self.trainer.storage.histories().get("time")
        speed = f", {times.global_avg():.4f} s / it" if times else ""
        total = timedelta(seconds=int(time.perf_counter() - self._train_start))
        logging.getLogger(__name__).info("Total training time: %s%s", total, speed)


class LRScheduler(HookBase):
    """Records "lr" and steps the trainer's scheduler after every iteration."""

    def after_step(self) -> None:
        groups = self.trainer.optimizer.param_groups
        shown = max(groups, key=lambda group: len(group["params"]))  # the rate that most parameters have
        self.trainer.storage.put_scalar("lr", shown["lr"], smoothing_hint=False)
        self.trainer.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        return self.trainer.scheduler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.trainer.scheduler.load_state_dict(state_dict)


class PeriodicCheckpointer(_FvcorePeriodicCheckpointer, HookBase):
    """fvcore's periodic checkpointer as a hook: every ``period`` iterations and after the last one."""

    def before_train(self) -> None:
        self.max_iter = self.trainer.max_iter

    def after_step(self) -> None:
        self.step(self.trainer.iter)


class EvalHook(HookBase):
    """Calls ``eval_function`` every ``eval_period`` iterations (0: never) and after training, and records its
    nested dict of numbers as "task/metric"."""

    def __init__(self, eval_period: int, eval_function: Callable[[], dict[str, Any] | None]) -> None:
        self._period = eval_period
        self._evaluate = eval_function

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if self._period > 0 and done % self._period == 0 and done < self.trainer.max_iter:
            self._run()

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:  # not after an error
            self._run()

    def _run(self) -> None:
        for name, value in _flatten(self._evaluate() or {}).items():
            if not isinstance(value, (int, float)):
                raise ValueError(f"evaluation result '{name}' must be a number, not {value!r}")
            self.trainer.storage.put_scalar(name, value, smoothing_hint=False)
        comm.synchronize()  # processes may evaluate for different times; they continue together


def _flatten(results: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in results.items():
        is_group = isinstance(value, Mapping)
        flat.update(_flatten(value, f"{prefix}{key}/") if is_group else {prefix + key: value})
    return flat


class PeriodicWriter(HookBase):
    """Calls writers every ``period`` iterations and at the end, then closes them."""

    def __init__(self, writers: list[EventWriter], period: int = 20) -> None:
        self._writers = writers
        self._period = period

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._period == 0 or done == self.trainer.max_iter:
            for writer in self._writers:
                writer.write()

    def after_train(self) -> None:
        for writer in self._writers:
            writer.write()  # what other hooks recorded at the end
            writer.close()
