"""The training loop: a step, repeated, with hooks around it."""

from __future__ import annotations

import logging
import math
import time
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, get_event_storage


class HookBase:
    """Something to do around every step. ``trainer`` is set when the hook is registered; hooks with state
    that belongs into checkpoints define ``state_dict`` and ``load_state_dict``."""

    trainer: TrainerBase

    def before_train(self) -> None:
        """Once, before the first iteration."""

    def after_train(self) -> None:
        """Once at the end, after an error or Ctrl-C too; ``trainer.iter == trainer.max_iter`` is success."""

    def before_step(self) -> None:
        """Before every iteration."""

    def after_step(self) -> None:
        """After every iteration."""

    def state_dict(self) -> dict[str, Any]:
        return {}


class TrainerBase:
    """Counts iterations and calls hooks; a subclass says what one step is."""

    storage: EventStorage

    def __init__(self) -> None:
        self._hooks: list[HookBase] = []
        self.iter = self.start_iter = self.max_iter = 0

    def register_hooks(self, hooks: Iterable[HookBase]) -> None:
        """Add hooks, called in this order."""
        for hook in hooks:
            hook.trainer = weakref.proxy(self)  # a trainer owns its hooks, not the other way round
            self._hooks.append(hook)

    def train(self, start_iter: int, max_iter: int) -> None:
        """Iterations ``start_iter`` up to, not including, ``max_iter``."""
        logger = logging.getLogger(__name__)
        logger.info("Starting training from iteration %d", start_iter)
        self.iter, self.start_iter, self.max_iter = start_iter, start_iter, max_iter
        with EventStorage(start_iter) as self.storage:
            try:
                self._call("before_train")
                for self.iter in range(start_iter, max_iter):
                    self.storage.iter = self.iter
                    self._call("before_step")
                    self.run_step()
                    self._call("after_step")
                self.iter = max(start_iter, max_iter)
            finally:
                self.storage.iter = self.iter
                self._call("after_train")

    def _call(self, moment: str) -> None:
        for hook in self._hooks:
            getattr(hook, moment)()

    def run_step(self) -> None:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """The iteration and the state of hooks, by class name."""
        states = {type(hook).__qualname__: hook.state_dict() for hook in self._hooks}
        return {"iteration": self.iter, "hooks": {name: state for name, state in states.items() if state}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.iter = state_dict["iteration"]
        hooks = {type(hook).__qualname__: hook for hook in self._hooks}
        for name, state in state_dict["hooks"].items():
            if name in hooks:
                hooks[name].load_state_dict(state)
            else:
                logging.getLogger(__name__).warning("the checkpoint's hook '%s' is not in use here", name)


class SimpleTrainer(TrainerBase):
    """One model that returns a dict of losses, one optimizer, one stream of batches."""

    def __init__(self, model: torch.nn.Module, data_loader: Iterable, optimizer: torch.optim.Optimizer) -> None:
        super().__init__()
        model.train()
        self.model, self.data_loader, self.optimizer = model, data_loader, optimizer
        self._batches = None  # opened at the first step: worker processes start then

    def run_step(self) -> None:
        """Load a batch, compute losses and gradients, update the weights.

        Raises FloatingPointError for a loss that is not finite, before the update: the weights stay usable.
        """
        start = time.perf_counter()
        if self._batches is None:
            self._batches = iter(self.data_loader)
        batch = next(self._batches)
        data_seconds = time.perf_counter() - start
        losses = self._compute_losses(batch)
        self.optimizer.zero_grad()
        self._backward(sum(losses.values()))
        self._record(losses, data_seconds)
        self._update()

    def _compute_losses(self, batch: list[dict]) -> dict[str, torch.Tensor]:
        return self.model(batch)

    def _backward(self, total: torch.Tensor) -> None:
        total.backward()

    def _update(self) -> None:
        self.optimizer.step()

    def _record(self, losses: dict[str, torch.Tensor], data_seconds: float) -> None:
        """Average the losses over all processes into the main process's storage."""
        values = torch.stack([loss.detach().float() for loss in losses.values()]).tolist()
        gathered = comm.gather((values, data_seconds))
        if not comm.is_main_process():
            return
        means = {name: sum(v[i] for v, _ in gathered) / len(gathered) for i, name in enumerate(losses)}
        total = sum(means.values())
        if not math.isfinite(total):
            raise FloatingPointError(f"a loss is infinite or NaN at iteration={self.iter}: {means}")
        # All processes wait for the slowest.
        slowest = max(seconds for _, seconds in gathered)
        get_event_storage().put_scalars(data_time=slowest, total_loss=total, **means)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.optimizer.load_state_dict(state_dict["optimizer"])


class AMPTrainer(SimpleTrainer):
    """Mixed precision on a GPU: float16 with scaled gradients."""

    def __init__(self, model: torch.nn.Module, data_loader: Iterable, optimizer: torch.optim.Optimizer) -> None:
        super().__init__(model, data_loader, optimizer)
        self.grad_scaler = torch.amp.GradScaler("cuda", enabled=torch.cuda.is_available())

    def _compute_losses(self, batch: list[dict]) -> dict[str, torch.Tensor]:
        with torch.autocast("cuda"):
            return super()._compute_losses(batch)

    def _backward(self, total: torch.Tensor) -> None:
        self.grad_scaler.scale(total).backward()

    def _update(self) -> None:
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "grad_scaler": self.grad_scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if state_dict.get("grad_scaler"):  # absent in checkpoints of full precision or of a CPU
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
