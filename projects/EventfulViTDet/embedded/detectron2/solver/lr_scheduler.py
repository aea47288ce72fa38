"""Learning rate schedules over iterations, from fvcore's functions of the relative time in [0, 1]."""

from __future__ import annotations

from typing import Any

import torch
from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    ConstantParamScheduler,
    LinearParamScheduler,
    ParamScheduler,
)
from torch.optim.lr_scheduler import LRScheduler


class WarmupParamScheduler(CompositeParamScheduler):
    """A warm-up followed by ``scheduler``.

    The warm-up takes ``warmup_length`` (a fraction of training) and starts at ``warmup_factor`` times the
    schedule's first value; "linear" rises from there to where the schedule takes over, "constant" stays.
    With ``rescale_interval`` the schedule begins after the warm-up, otherwise it runs along underneath.
    """

    def __init__(
        self,
        scheduler: ParamScheduler,
        warmup_factor: float,
        warmup_length: float,
        warmup_method: str = "linear",
        rescale_interval: bool = False,
    ) -> None:
        first = warmup_factor * scheduler(0.0)
        if warmup_method == "linear":
            warmup = LinearParamScheduler(first, scheduler(0.0 if rescale_interval else warmup_length))
        elif warmup_method == "constant":
            warmup = ConstantParamScheduler(first)
        else:
            raise ValueError(f"SOLVER.WARMUP_METHOD is '{warmup_method}'; known: linear, constant")
        super().__init__(
            [warmup, scheduler],
            lengths=[warmup_length, 1 - warmup_length],
            interval_scaling=["rescaled", "rescaled" if rescale_interval else "fixed"],
        )


class LRMultiplier(LRScheduler):
    """Sets every group's learning rate to its initial value times ``multiplier(iteration / max_iter)``."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        multiplier: ParamScheduler,
        max_iter: int,
        last_iter: int = -1,
    ) -> None:
        self._multiplier = multiplier
        self._max_iter = max_iter
        super().__init__(optimizer, last_epoch=last_iter)

    def state_dict(self) -> dict[str, Any]:
        """What changes during training; the schedule itself comes from the config."""
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}

    def get_lr(self) -> list[float]:
        factor = self._multiplier(self.last_epoch / self._max_iter)
        return [base * factor for base in self.base_lrs]
