"""Parameter groups, gradient clipping and learning rates from a config."""

from __future__ import annotations

import logging
from typing import Any, Callable

import torch
from detectron2.config import CfgNode
from fvcore.common.param_scheduler import (
    CompositeParamScheduler,
    CosineParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
)
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

_NORM_LAYERS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def get_default_optimizer_params(
    model: nn.Module,
    *,
    base_lr: float,
    weight_decay: float,
    weight_decay_norm: float,
    bias_lr_factor: float,
    weight_decay_bias: float | None,
    lr_factor_func: Callable[[str], float],
    overrides: dict[str, dict[str, float]],
) -> list[dict[str, Any]]:
    """Trainable parameters as few optimizer groups, one per distinct pair of learning rate and weight decay.

    ``weight_decay_norm`` applies to normalisation layers, ``weight_decay_bias`` (unless None) to biases;
    ``lr_factor_func`` maps a parameter's full name to a factor of ``base_lr``; ``overrides`` maps a parameter's last
    name (such as "pos_embed") to values that win over everything else.
    """
    for_bias: dict[str, float] = {}
    if bias_lr_factor != 1.0:
        for_bias["lr"] = base_lr * bias_lr_factor
    if weight_decay_bias is not None:
        for_bias["weight_decay"] = weight_decay_bias
    overrides = {"bias": for_bias, **overrides}
    groups: dict[frozenset, dict[str, Any]] = {}
    seen: set[nn.Parameter] = set()  # a shared parameter belongs to the first module that names it
    for module_name, module in model.named_modules():
        decay = weight_decay_norm if isinstance(module, _NORM_LAYERS) else weight_decay
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            values = {"lr": base_lr * lr_factor_func(f"{module_name}.{name}"), "weight_decay": decay}
            values.update(overrides.get(name, {}))
            groups.setdefault(frozenset(values.items()), {"params": [], **values})["params"].append(parameter)
    return list(groups.values())


def maybe_add_gradient_clipping(cfg: CfgNode, optimizer: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """Make a class of optimizers clip every parameter's gradient, if SOLVER.CLIP_GRADIENTS says so; "norm" limits the
    norm of each parameter's gradient, not that of all together."""
    settings = cfg.SOLVER.CLIP_GRADIENTS
    if not settings.ENABLED:
        return optimizer
    kind, limit, norm_type = settings.CLIP_TYPE, settings.CLIP_VALUE, settings.NORM_TYPE
    if kind not in ("value", "norm"):
        raise ValueError(f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE is '{kind}'; known: value, norm")

    class GradientClipping(optimizer):
        def step(self, closure=None):
            for parameter in (parameter for group in self.param_groups for parameter in group["params"]):
                if kind == "value":
                    nn.utils.clip_grad_value_(parameter, limit)
                else:
                    nn.utils.clip_grad_norm_(parameter, limit, norm_type)
            return super().step(closure)

    return GradientClipping


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRMultiplier:
    """The schedule SOLVER.LR_SCHEDULER_NAME after a linear warm-up; call ``step()`` after every iteration."""
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
        schedule = _multi_step(solver)
    elif solver.LR_SCHEDULER_NAME == "WarmupCosineLR":
        if not 0.0 <= solver.BASE_LR_END <= solver.BASE_LR:
            raise ValueError(f"SOLVER.BASE_LR_END is {solver.BASE_LR_END}, not within 0 and SOLVER.BASE_LR")
        schedule = CosineParamScheduler(1.0, solver.BASE_LR_END / solver.BASE_LR)
    else:
        known = "WarmupMultiStepLR, WarmupCosineLR"
        raise ValueError(f"SOLVER.LR_SCHEDULER_NAME is '{solver.LR_SCHEDULER_NAME}'; known: {known}")
    length = min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0)
    # It rises to where the schedule, which runs along underneath, has come by then.
    warmup = LinearParamScheduler(solver.WARMUP_FACTOR * schedule(0.0), schedule(length))
    multiplier = CompositeParamScheduler([warmup, schedule], [length, 1 - length], ["rescaled", "fixed"])
    return LRMultiplier(optimizer, multiplier, solver.MAX_ITER)


def _multi_step(solver: CfgNode) -> ParamScheduler:
    steps = [step for step in solver.STEPS if step < solver.MAX_ITER]
    if len(steps) < len(solver.STEPS):
        message = "SOLVER.STEPS %s: those not below SOLVER.MAX_ITER (%d) are left out"
        logging.getLogger(__name__).warning(message, solver.STEPS, solver.MAX_ITER)
    values = [solver.GAMMA**count for count in range(len(steps) + 1)]
    return MultiStepParamScheduler(values, num_updates=solver.MAX_ITER, milestones=steps)


class LRMultiplier(LRScheduler):
    """Sets every group's learning rate to its initial value times ``multiplier(iteration / max_iter)``."""

    def __init__(self, optimizer: torch.optim.Optimizer, multiplier: ParamScheduler, max_iter: int) -> None:
        self._multiplier = multiplier
        self._max_iter = max_iter
        super().__init__(optimizer)

    def state_dict(self) -> dict[str, Any]:
        """What changes during training; the schedule itself comes from the config."""
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}

    def get_lr(self) -> list[float]:
        factor = self._multiplier(self.last_epoch / self._max_iter)
        return [base * factor for base in self.base_lrs]
